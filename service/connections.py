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
    """uvicorn's protocol. 431 for a head or trailers without end, 408 for a request that does not arrive, 400 for what
    is not HTTP, all in the one shape of errors; a client that reads nothing is cut off.
    """

    def __init__(self, *args: Any, bounds: Bounds, **named: Any) -> None:
        super().__init__(*args, **named)
        self._bounds = bounds
        self._arriving: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._is_in_head = self._is_refused = False
        self._num_unparsed = 0  # bytes of a head or of trailers, which nothing is told of before their end
        self._num_unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arriving = self._after(self._bounds.read_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._arriving, self._leaving, self._closing):
            _cancel(timer)
        super().connection_lost(exc)

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        was_between = self.cycle is None or self.cycle.response_complete
        self._num_unparsed += len(data)
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._is_in_head and was_between:
            self._num_unparsed = max(self._num_unparsed, len(data))  # it began in here, and nothing else is in here
        if self._num_unparsed > MAX_HEAD_BYTES:
            self._refuse(too_large_head())
        elif was_between and not self._is_in_head and self.timeout_keep_alive_task is None and self.cycle is not None:
            self._keep_alive()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._num_unparsed = True, 0
        _cancel(self._arriving)
        self._arriving = self._after(self._bounds.read_seconds, self._too_slow)

    def on_headers_complete(self) -> None:
        self._is_in_head, self._num_unparsed = False, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._num_unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_unparsed = 0
        _cancel(self._arriving)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg, code="invalid_http"))

    def _too_slow(self) -> None:
        seconds = self._bounds.read_seconds
        if self._is_answering():  # the next request is not read before this one is answered
            self._arriving = self._after(seconds, self._too_slow)
        else:
            self._refuse(
                ApiError(408, f"the request did not arrive within {seconds:g} seconds", code="request_timeout")
            )

    def _keep_alive(self) -> None:
        """Empty lines between requests stop uvicorn's timer and begin nothing."""
        if self.cycle.response_complete:
            self.timeout_keep_alive_task = self._after(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _is_answering(self) -> bool:
        """Whether a whole request is being answered, or an answer has begun."""
        cycle = self.cycle
        is_open = cycle is not None and not cycle.response_complete
        return bool(self.pipeline) or (is_open and (cycle.response_started or not cycle.more_body))

    def _refuse(self, error: ApiError) -> None:
        """Say why, unless an answer is already on its way, and close."""
        self._is_refused = True
        if self.transport.is_closing():
            return
        if self._is_answering():
            self.transport.close()
            return
        headers, body = encoded(error)
        lines = [STATUS_LINE[error.status], *(b"%b: %b\r\n" % header for header in headers), b"\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.write_eof()
        self._closing = self._after(LINGER_SECONDS, self.transport.close)

    # ── what goes ────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._leaving)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """Look again after a while whether the client has taken some of what waits for it."""
        _cancel(self._leaving)
        self._num_unsent = self.transport.get_write_buffer_size()
        if self._num_unsent:
            self._leaving = self._after(self._bounds.write_seconds, self._require_progress)

    def _require_progress(self) -> None:
        if self.transport.get_write_buffer_size() >= self._num_unsent:
            self.transport.abort()
        else:
            self._watch_writing()

    def _after(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, act)


def too_large_head() -> ApiError:
    """For a head past MAX_HEAD_BYTES."""
    return ApiError(431, f"the headers are larger than {MAX_HEAD_BYTES} bytes; send less", code="headers_too_large")


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
