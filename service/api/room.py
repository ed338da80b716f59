"""Turns askers away while the queue is full, before their requests are understood: under load a no must cost little."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import ApiError, respond
from service.turns import Turns

GENERATING = frozenset({"/v1/chat/completions", "/v1/completions"})


class Room:
    """ASGI middleware. What finds no place later, when others were quicker, is refused by the engine itself."""

    def __init__(self, app: ASGIApp, *, turns: Turns) -> None:
        self._app = app
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_generating = scope["type"] == "http" and scope["path"] in GENERATING
        if is_generating and not self._turns.has_room():
            refusal = respond(ApiError(429, "the queue is full; try again shortly", code="queue_full"))
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
