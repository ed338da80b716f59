"""One error shape everywhere: {"error": {message, type, param, code}}."""

import json
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Send

from agent.embedding import EmbedderError
from agent.engine import EngineBusy, EngineClosed
from service.placing import NotPlaced

RETRY_AFTER_SECONDS = "1"
UNION = re.compile(r"^(constrained-)?str$|\[")  # pydantic's own names for the alternatives of a field


class ApiError(Exception):
    """An answer that is an error, as the client will see it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        retry = {"Retry-After": RETRY_AFTER_SECONDS} if status in (429, 503) else {}
        self.headers = retry | (headers or {})
        self.status, self.message, self.param, self.code, self.extra = status, message, param, code, extra

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code, **self.extra}}


def respond(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)


def encoded(error: ApiError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body for whoever answers below the routes; what is left of the request is not read, so the
    connection ends.
    """
    body = json.dumps(error.body).encode()
    told = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    return [(name.encode(), value.encode("latin-1")) for name, value in (told | error.headers).items()], body


async def send_error(error: ApiError, send: Send) -> None:
    """The answer of a middleware."""
    headers, body = encoded(error)
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def install(app: FastAPI) -> None:
    """Turn every failure of a request into the one shape."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, error: ApiError) -> JSONResponse:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return respond(from_validation(_deepest(error.errors())))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return respond(
            ApiError(error.status_code, str(error.detail), code="not_found" if error.status_code == 404 else None)
        )

    @app.exception_handler(EngineBusy)
    async def _busy(_: Request, error: EngineBusy) -> JSONResponse:
        return respond(ApiError(429, str(error), code="queue_full"))

    @app.exception_handler(EngineClosed)
    async def _closed(_: Request, error: EngineClosed) -> JSONResponse:
        return respond(ApiError(503, str(error), code="engine_unavailable"))

    @app.exception_handler(EmbedderError)
    @app.exception_handler(NotPlaced)
    async def _not_embedded(_: Request, error: EmbedderError | NotPlaced) -> JSONResponse:
        return respond(ApiError(503, str(error), code="embedder_failed"))

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> JSONResponse:  # uvicorn logs it with its traceback
        message = f"an unexpected failure, {type(error).__name__}; the daemon's log says more"
        return respond(ApiError(500, message, code="internal_error"))


def _deepest(problems: Sequence[Any]) -> Any:
    """Of the alternatives of the first field that is wrong, the one that came furthest: it was meant."""
    field = problems[0]["loc"]
    if field and UNION.search(str(field[-1])):
        field = field[:-1]
    same = [problem for problem in problems if problem["loc"][: len(field)] == field]
    return max(same, key=lambda problem: len(problem["loc"]))


def from_validation(problem: Any) -> ApiError:
    """A pydantic problem as a 400 that names the field."""
    is_unknown = problem["type"] == "extra_forbidden"  # its last name is the client's own
    where = [str(part) for part in problem["loc"] if part != "body" and (is_unknown or not UNION.search(str(part)))]
    if problem["type"] in ("json_invalid", "model_attributes_type", "missing") and not where:
        return ApiError(400, f"the body is not a JSON object: {problem['msg']}", code="invalid_json")
    if problem["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {problem['ctx']['error']}", code="invalid_json")
    if not where and problem["type"] == "value_error":  # what is wrong is how its fields go together
        return ApiError(400, f"the body: {problem['msg'].removeprefix('Value error, ')}", code="invalid_value")
    name = ".".join(where) or "a field whose name is not Unicode"
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"{name} is not supported here; leave it out", param=name, code="unsupported_parameter")
    message = problem["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{name}: {message}", param=name, code="invalid_value")
