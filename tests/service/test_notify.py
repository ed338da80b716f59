"""service.notify against a real datagram socket that stands for systemd's."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@honed-test-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(5)
        listener.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        yield listener, {"NOTIFY_SOCKET": name}


def test_each_message_arrives_as_one_datagram(manager):
    listener, environment = manager
    assert notify.ready("serving base", environment=environment)
    assert listener.recv(4096) == b"READY=1\nSTATUS=serving base"
    assert notify.stopping(environment=environment)
    assert listener.recv(4096) == b"STOPPING=1"
    assert notify.watchdog(environment=environment)
    assert listener.recv(4096) == b"WATCHDOG=1"
    assert notify.status("2 asked, träge", environment=environment)
    assert listener.recv(4096) == "STATUS=2 asked, träge".encode()


def test_a_line_break_in_a_status_cannot_smuggle_another_assignment(manager):
    listener, environment = manager
    assert notify.status("fine\nMAINPID=1\r\nSTOPPING=1", environment=environment)
    assert listener.recv(4096) == b"STATUS=fine MAINPID=1 STOPPING=1"


def test_an_empty_status_sends_nothing(manager):
    _, environment = manager
    assert not notify.status(" \n ", environment=environment)


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_unix_socket_to_tell_nothing_happens(environment):
    assert not notify.ready(environment=environment)
    assert not notify.watchdog(environment=environment)


def test_a_manager_that_went_away_does_not_stop_the_daemon(tmp_path):
    assert not notify.watchdog(environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert not notify.watchdog(environment={"NOTIFY_SOCKET": "/" + "x" * 300})


def test_a_manager_that_stopped_reading_does_not_hold_up_the_daemon(manager, monkeypatch):
    _, environment = manager
    monkeypatch.setattr(notify, "SEND_SECONDS", 0.05)
    limit = 100_000
    assert any(not notify.watchdog(environment=environment) for _ in range(limit))


def test_the_watchdog_interval_is_half_of_what_is_allowed():
    assert notify.watchdog_interval(environment={"WATCHDOG_USEC": "30000000"}) == 15.0
    mine = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert notify.watchdog_interval(environment=mine) == 15.0


@pytest.mark.parametrize(
    "environment", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "4242"}]
)
def test_no_watchdog_is_expected_of_this_process(environment):
    assert notify.watchdog_interval(environment=environment, pid=7) is None


@pytest.mark.parametrize("allowed", ["soon", "-5", "1e6", "٣"])
def test_a_broken_watchdog_setting_is_named(allowed):
    with pytest.raises(ValueError, match="WATCHDOG_USEC"):
        notify.watchdog_interval(environment={"WATCHDOG_USEC": allowed})
