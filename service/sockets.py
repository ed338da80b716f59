"""Where the daemon listens: a TCP socket for everybody on loopback, a Unix socket for its owner, a server on each."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from service.config import Settings
from service.connections import Bounds, Connection

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # sun_path, less its closing zero


class Server(uvicorn.Server):
    """uvicorn without signal handling of its own: the daemon has two servers and one place for signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: FastAPI, settings: Settings) -> Server:
    bounds = Bounds(settings.read_seconds, settings.write_seconds)
    config = uvicorn.Config(
        app,
        http=partial(Connection, bounds=bounds),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        timeout_keep_alive=10,
    )
    return Server(config)


def listen_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tcp = socket.socket(family, socket.SOCK_STREAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        tcp.bind((host, port))
    except OSError as error:
        tcp.close()
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {error.strerror}; set HONED_PORT to another port"
        ) from None
    return tcp


def host_of(tcp: socket.socket) -> str:
    name = str(tcp.getsockname()[0])
    return f"[{name}]" if ":" in name else name


def listen_unix(path: Path) -> socket.socket:
    """The operator's door: only this user may open it. The state lock is held, so a socket left there is stale."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise OSError(f"{path} is longer than the {MAX_SOCKET_PATH} bytes a socket may have; set HONED_STATE elsewhere")
    path.unlink(missing_ok=True)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        unix.bind(str(path))
    finally:
        os.umask(mask)
    return unix
