"""The bounds of a connection: heads without end, requests that do not arrive, answers nobody reads, and no HTTP."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.limits import Limits
from service.config import Settings
from service.connections import MAX_HEAD_BYTES
from service.sockets import make_server
from tests.service.conftest import wait_until

FINE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("hello")(scope, receive, send)


class Flood:
    """An answer without end, and whether it is still being written."""

    def __init__(self) -> None:
        self.is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> object:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        try:
            await StreamingResponse(chunks())(scope, receive, send)  # type: ignore[arg-type]
        finally:
            self.is_over = True


@contextmanager
def listening(app: ASGIApp, settings: Settings, *, keep_alive: float = 10) -> Iterator[int]:
    """The app behind our server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = make_server(Limits(app, max_body_bytes=1000), settings)  # type: ignore[arg-type]
        server.config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    with listening(hello, Settings(read_seconds=0.3, drain_seconds=1)) as number:
        yield number


def exchange(port: int, *sent: bytes, is_ended: bool = False) -> tuple[int, dict[str, str] | str]:
    """What comes back until the server closes: status, and the error or the text."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
        for part in sent:
            conn.sendall(part)
        if is_ended:
            conn.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: conn.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    return status, json.loads(body)["error"] if body.startswith(b"{") else body.decode()


def test_a_whole_request_is_answered(port: int) -> None:
    assert exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") == (200, "hello")


@pytest.mark.parametrize("name", [b"X: ", b""])
def test_a_head_without_end_is_refused_with_its_limit(port: int, name: bytes) -> None:
    sent = [b"GET / HTTP/1.1\r\n", name + b"y" * MAX_HEAD_BYTES, b"y" * 1000] if name else [b"GET /" + b"y" * 70_000]
    status, error = exchange(port, *sent)
    assert (status, error["code"]) == (431, "headers_too_large")  # type: ignore[index]
    assert str(MAX_HEAD_BYTES) in error["message"]  # type: ignore[index]


def test_a_head_that_ends_past_the_limit_is_refused_too(port: int) -> None:
    status, error = exchange(port, b"GET / HTTP/1.1\r\nX: " + b"y" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n")
    assert (status, error["code"]) == (431, "headers_too_large")  # type: ignore[index]


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}"],
)
def test_a_request_that_does_not_arrive_is_given_up_in_time(port: int, begun: bytes) -> None:
    began = time.monotonic()
    status, error = exchange(port, begun)
    assert (status, error["code"]) == (408, "request_timeout")  # type: ignore[index]
    assert "within 0.3 seconds" in error["message"]  # type: ignore[index]
    assert time.monotonic() - began >= 0.3


def test_a_request_that_came_in_time_is_not_given_up_while_the_connection_lives_on(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
        for _ in range(2):
            conn.sendall(FINE)
            assert conn.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.5)


def test_what_is_not_http_is_refused_in_the_one_shape(port: int) -> None:
    status, error = exchange(port, b"\x16\x03\x01 hello\r\n\r\n")
    assert (status, error["code"]) == (400, "invalid_http")  # type: ignore[index]


def test_half_a_body_is_no_request(port: int) -> None:
    body = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}"
    assert exchange(port, body, is_ended=True)[0] in (0, 408)


def test_a_chunked_body_of_one_byte_too_many_is_refused(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, error = exchange(port, head, b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
    assert (status, error["code"]) == (413, "body_too_large")  # type: ignore[index]


def test_a_client_that_reads_nothing_is_cut_off_and_the_answer_ends() -> None:
    flood = Flood()
    with listening(flood, Settings(write_seconds=0.3, drain_seconds=1)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
            conn.sendall(FINE)
            wait_until(lambda: flood.is_over)


def test_trailers_without_end_are_refused(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    status, error = exchange(port, head, b"X: ", *[b"y" * MAX_HEAD_BYTES] * 8)
    assert (status, error["code"]) == (431, "headers_too_large")  # type: ignore[index]


def test_empty_lines_do_not_keep_a_connection_for_ever() -> None:
    with listening(hello, Settings(read_seconds=0.3, drain_seconds=1), keep_alive=0.5) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
            conn.sendall(FINE)
            assert conn.recv(65536).startswith(b"HTTP/1.1 200")
            conn.sendall(b"\r\n")
            assert conn.recv(65536) == b""


def test_what_follows_a_request_too_early_does_not_spoil_its_answer(port: int) -> None:
    """The second one does not arrive whole; the first is answered, whatever comes then."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
        conn.sendall(FINE + b"GET / HTTP/1.1\r\nHost")
        answer = b"".join(iter(lambda: conn.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"hello")


class Slow:
    """An answer in two halves, with time between."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def chunks() -> object:
            yield b"first"
            await asyncio.sleep(1.0)
            yield b"second"

        await StreamingResponse(chunks())(scope, receive, send)  # type: ignore[arg-type]


def test_an_answer_that_takes_longer_than_a_request_may_is_not_cut_by_the_next_one() -> None:
    with listening(Slow(), Settings(read_seconds=0.3, drain_seconds=2)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
            conn.sendall(FINE + b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab")
            got = b""
            while b"0\r\n\r\n" not in got:
                block = conn.recv(65536)
                assert block, got
                got += block
    assert got.partition(b"\r\n\r\n")[2] == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"


def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"x" * (8 << 20))(scope, receive, send)

    with listening(large, Settings(write_seconds=0.5, drain_seconds=2)) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as conn:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            conn.sendall(FINE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            size = 0
            while block := conn.recv(1 << 18):
                size += len(block)
                time.sleep(0.03)
    assert size > 8 << 20
