"""Child processes are stopped whole, whoever of them ends by itself meanwhile."""

import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from service.supervisor import Child, Supervisor
from tests.service.conftest import wait_until

PARENT = """import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)"""


@pytest.fixture
def family():
    """A process that sleeps, and the one that it started."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))
    yield parent, child
    with suppress(psutil.NoSuchProcess):
        child.kill()
    parent.kill()
    parent.wait()
    parent.stdout.close()


def of(process: subprocess.Popen) -> Child:
    return Child(process.pid, psutil.Process(process.pid).create_time())


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_child_is_stopped_with_what_it_started(family) -> None:
    parent, child = family
    Supervisor(nice=0).stop(of(parent))
    wait_until(lambda: is_over(child))
    assert parent.poll() is not None


def test_a_member_that_ends_just_before_its_signal_keeps_no_other_from_theirs(family, monkeypatch) -> None:
    parent, child = family
    send = psutil.Process.send_signal

    def ended_by_itself(self: psutil.Process, sign: int) -> None:
        if self.pid == parent.pid:
            parent.kill()
            parent.wait()
        send(self, sign)

    monkeypatch.setattr(psutil.Process, "send_signal", ended_by_itself)
    Supervisor(nice=0).stop(of(parent))
    wait_until(lambda: is_over(child))


def test_a_child_that_ends_while_it_is_looked_at_is_stopped_already(family, monkeypatch) -> None:
    parent, _ = family
    child, status = of(parent), psutil.Process.status

    def seen_last(self: psutil.Process) -> str:
        found = status(self)
        parent.kill()
        parent.wait()
        return found

    monkeypatch.setattr(psutil.Process, "status", seen_last)
    Supervisor(nice=0).stop(child)
    assert parent.poll() is not None
