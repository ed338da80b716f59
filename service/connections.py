"""One HTTP connection, with the bounds that uvicorn leaves open: how large a head may be, and how long each side may
take. Knows nothing of routes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.errors import ApiError, encoded

MAX_HEAD_BYTES = 64 << 10
LINGER_SECONDS = 1.0  # after a refusal: to close with bytes unread resets the connection before the client has read why


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a request may take to arrive, and how long a client may leave an answer unread."""

    read_seconds: float
    write_seconds: float


class Connection(HttpToolsProtocol):
    """uvicorn's protocol. 431 for a head without end, 408 for a request that does not arrive, 400 for what is not HTTP,
    all in the one shape of errors; a client that reads nothing is cut off.
    """

    def __init__(self, *args: Any, bounds: Bounds, **named: Any) -> None:
        super().__init__(*args, **named)
        self._bounds = bounds
        self._arriving: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._is_in_head = self._is_refused = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arriving = self._after(self._bounds.read_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._arriving)
        _cancel(self._leaving)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_in_head and not self._is_refused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(too_large_head())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0
        _cancel(self._arriving)
        self._arriving = self._after(self._bounds.read_seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        _cancel(self._arriving)
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._leaving = self._after(self._bounds.write_seconds, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        _cancel(self._leaving)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg, code="invalid_http"))

    def _too_slow(self) -> None:
        seconds = self._bounds.read_seconds
        self._refuse(ApiError(408, f"the request did not arrive within {seconds:g} seconds", code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Say why, unless an answer is already on its way, and close."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
            return
        headers, body = encoded(error)
        lines = [STATUS_LINE[error.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.write_eof()
        self._leaving = self._after(LINGER_SECONDS, self.transport.close)

    def _after(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, act)


def too_large_head() -> ApiError:
    """For a head past MAX_HEAD_BYTES."""
    return ApiError(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes; send less", code="headers_too_large")


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
