"""How large a head and a body may be, before any route runs."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import ApiError, send_error
from service.connections import MAX_HEAD_BYTES, too_large_head

DROPPED_BYTES = 64 << 20


class Limits:
    """ASGI middleware. An oversized request goes no further, nor does one whose client left before its end."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        body = await self._body(receive)
        if body is None:
            return
        if refusal is not None or len(body) > self._max:
            await send_error(refusal or self._too_large(), send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            return too_large_head()
        length = dict(scope["headers"]).get(b"content-length", b"0").decode("latin-1")
        if not length.isdigit():
            return ApiError(
                400, f"content-length {length!r} is not a number", param="content-length", code="invalid_value"
            )
        return self._too_large() if int(length) > self._max else None

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body is larger than {self._max} bytes; send less", param="body", code="body_too_large"
        )

    async def _body(self, receive: Receive) -> bytes | None:
        """The body, or its first bytes and one more than may be (chunked bodies name no length); None when the client
        left before its end.

        What is past the limit is read too, within reason, and dropped: to close with bytes unread resets the
        connection, and the client would not see why it was refused.
        """
        body, dropped = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            kept = chunk[: self._max + 1 - len(body)]
            body += kept
            dropped += len(chunk) - len(kept)
            if not message.get("more_body", False) or dropped > DROPPED_BYTES:
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read once more, then whatever the server says next (a disconnect)."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
