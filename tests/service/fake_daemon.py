"""A daemon that says what it is told to: real HTTP on a real Unix socket, also the kind that breaks off."""

import json
import socketserver
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from tests.service.shells import Here

Answer = Callable[[BaseHTTPRequestHandler], None]


class FakeDaemon:
    """Answers by path, whatever the query; keeps the paths as they came."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.answers.get(handler.path.partition("?")[0], says({"error": {"message": "no such thing"}}, 404))(handler)


@contextmanager
def shell_of(answers: Mapping[str, Answer]) -> Iterator[tuple[Here, FakeDaemon]]:
    """Somebody at the command line of such a daemon (a socket's path must be short)."""
    daemon = FakeDaemon(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            daemon.answer(self)

        def do_POST(self) -> None:
            daemon.answer(self)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with tempfile.TemporaryDirectory(prefix="honed-") as state:
        with socketserver.ThreadingUnixStreamServer(str(Path(state) / "honed.sock"), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield Here(Path(state)), daemon
            finally:
                server.shutdown()
                thread.join()


def says(value: Any, status: int = 200) -> Answer:
    """JSON; text goes as it is."""
    body = (value if isinstance(value, str) else json.dumps(value)).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def streams(*events: Any, is_whole: bool = True) -> Answer:
    """Server-sent events; without the last word where they are not whole."""
    lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"] * is_whole

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write("".join(lines).encode())

    return answer


def cuts(handler: BaseHTTPRequestHandler) -> None:
    """Half of what it announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"half":')


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    """Not a word."""
    handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def token(text: str) -> dict[str, Any]:
    """One event of an answer that is streamed."""
    return {"choices": [{"delta": {"content": text}}]}
