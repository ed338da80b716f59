"""Outermost: hosts that may be named, origins that may ask, and how large a body may be. Before any route runs."""

import json
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import ApiError

ALLOWED_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
DROPPED_BYTES = 64 << 20


class Limits:
    """ASGI middleware. A foreign Host (DNS rebinding), a foreign Origin or an oversized body goes no further."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(headers)
        body = await self._body(receive)
        if refusal is not None or body is None:
            await _answer(refusal or self._too_large(), send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _refusal(self, headers: dict[str, str]) -> ApiError | None:
        host = _split("//" + headers.get("host", "")).hostname or ""
        if host not in ALLOWED_HOSTS:
            return ApiError(
                403, f"host {host!r} is not one this daemon answers to", param="host", code="host_not_allowed"
            )
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != headers.get("host"):
            return ApiError(403, f"origin {origin!r} may not ask here", param="origin", code="origin_not_allowed")
        length = headers.get("content-length", "0")
        if not length.isdigit():
            return ApiError(
                400, f"content-length {length!r} is not a number", param="content-length", code="invalid_value"
            )
        if int(length) > self._max:
            return self._too_large()
        return None

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


def _split(url: str) -> SplitResult:
    """An address that cannot be read is nobody's."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


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


async def _answer(error: ApiError, send: Send) -> None:
    body = json.dumps(error.body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
