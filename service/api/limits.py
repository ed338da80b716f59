"""How large a body may be, before any route runs."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import ApiError, send_error

DROPPED_BYTES = 64 << 20


class Limits:
    """ASGI middleware. An oversized body goes no further."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(headers.get(b"content-length", b"0").decode("latin-1"))
        body = await self._body(receive)
        if refusal is not None or body is None:
            await send_error(refusal or self._too_large(), send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, length: str) -> ApiError | None:
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
        """The whole body, or None when it grows past the limit (chunked bodies name no length).

        What is past the limit is read too, within reason, and dropped: to close with bytes unread resets the
        connection, and the client would not see why it was refused.
        """
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= self._max:
                chunks.append(chunk)
            if not message.get("more_body", False) or size > self._max + DROPPED_BYTES:
                return b"".join(chunks) if size <= self._max else None


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
