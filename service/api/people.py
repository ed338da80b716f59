"""What people say and see: feedback, health and the page."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from service.api.asking import principal_of
from service.api.errors import ApiError
from service.api.parts import Parts
from service.api.schemas import FeedbackRequest
from service.teaching import NothingSaid
from store.comparisons import Comparison, NotComparable
from store.interactions import UnknownInteraction
from store.records import Feedback

WEB = Path(__file__).parent.parent / "web"
PAGE_FILES = {"/": "index.html", "/app.js": "app.js", "/style.css": "style.css"}
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router(parts: Parts) -> APIRouter:
    """Feedback, health and page routes over these parts."""
    routes = APIRouter()

    @routes.post("/v1/feedback")
    def feedback(body: FeedbackRequest, request: Request) -> dict[str, Any]:
        return _given(parts, body, principal_of(request))

    @routes.get("/health/live")
    def live() -> dict[str, str]:
        return {"status": "live"}

    @routes.get("/health/ready")
    def ready() -> JSONResponse:
        problem = parts.health.problem()
        checkpoint = parts.serving.current.checkpoint_id
        if problem is not None:
            error = {"message": problem, "type": "server_error", "param": None, "code": "not_ready"}
            return JSONResponse({"status": "not ready", "error": error}, status_code=503, headers={"Retry-After": "1"})
        told = {"device": str(parts.loader.device), "weights": parts.loader.weights}
        speed = parts.serving.stats().tokens_per_second
        return JSONResponse({"status": "ready", "checkpoint": checkpoint, **told, "tokens_per_second": speed})

    @routes.get("/metrics")
    def metrics() -> Response:
        text = parts.metrics.text(parts.serving.current.checkpoint_id)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, name in PAGE_FILES.items():
        routes.add_api_route(path, _page(name), include_in_schema=False)
    return routes


def _given(parts: Parts, body: FeedbackRequest, principal: str) -> dict[str, Any]:
    """What a person says of one answer, or of two."""
    try:
        if body.other_id is not None and body.better is not None:
            said = parts.teaching.compare(body.interaction_id, body.other_id, principal, body.better)
            return comparison_json(said)
        given = parts.teaching.give_feedback(
            body.interaction_id,
            principal,
            rating=body.rating,
            correction=body.correction,
            comment=body.comment,
            document=body.document,
        )
    except UnknownInteraction:
        named = " or ".join(map(repr, filter(None, (body.interaction_id, body.other_id))))
        raise ApiError(404, f"no interaction {named}", param="interaction_id", code="interaction_not_found") from None
    except NothingSaid as error:
        raise ApiError(400, str(error), param="rating", code="invalid_value") from None
    except NotComparable as error:
        raise ApiError(400, str(error), param="other_id", code="invalid_value") from None
    return feedback_json(given)


def feedback_json(given: Feedback) -> dict[str, Any]:
    return {
        "id": given.id,
        "object": "feedback",
        "interaction_id": given.interaction_id,
        "rating": given.rating,
        "correction": given.correction,
        "comment": given.comment,
        "document": given.document,
    }


def comparison_json(said: Comparison) -> dict[str, Any]:
    return {
        "id": said.id,
        "object": "comparison",
        "interaction_id": said.first_id,
        "other_id": said.second_id,
        "better": said.choice,
    }


def _page(name: str) -> Any:
    async def page() -> FileResponse:
        return FileResponse(WEB / name, headers=PAGE_HEADERS)

    return page
