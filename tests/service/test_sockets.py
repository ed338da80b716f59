"""Where the daemon listens, and what it says when it cannot."""

import socket
from pathlib import Path

import pytest

from service.sockets import MAX_SOCKET_PATH, listen_tcp, listen_unix


def test_the_operators_door_is_the_owners_alone_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        with listen_unix(path):
            assert path.stat().st_mode & 0o777 == 0o600


def test_a_path_too_long_for_a_socket_is_refused_with_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_SOCKET_PATH)
    with pytest.raises(OSError, match=r"longer than the 10[0-9] bytes a socket may have; set HONED_STATE elsewhere"):
        listen_unix(path)


def test_a_taken_port_is_named_with_the_next_step() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: .*set HONED_PORT to another port"):
            listen_tcp("127.0.0.1", port)
