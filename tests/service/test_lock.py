"""One daemon a state directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.lock import StateInUse, StateLock

HOLD = """
import sys
from pathlib import Path
from service.lock import StateLock
StateLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "honed.lock"


@pytest.fixture
def holder(path: Path):
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_holder_is_refused_and_told_who_has_it(path, holder):
    with pytest.raises(
        StateInUse, match=rf"{path.parent} is in use by process {holder.pid}; stop it, or set HONED_STATE"
    ):
        StateLock(path).acquire()


def test_the_lock_of_a_killed_process_is_free(path, holder):
    holder.kill()
    holder.wait()
    with StateLock(path):
        assert path.read_text() == str(os.getpid())


def test_a_released_lock_can_be_taken_again(path):
    for _ in range(2):
        with StateLock(path), pytest.raises(StateInUse, match=str(os.getpid())):
            StateLock(path).acquire()


def test_releasing_what_is_not_held_is_no_error(path):
    StateLock(path).release()


def test_a_longer_name_of_an_earlier_holder_does_not_shine_through(path):
    path.write_text("1234567890123")
    with StateLock(path):
        assert path.read_text() == str(os.getpid())


def test_the_lock_is_for_its_owner_only_and_not_inherited(path):
    lock = StateLock(path)
    with lock:
        assert path.stat().st_mode & 0o777 == 0o600
        assert not os.get_inheritable(lock._descriptor)


def test_a_second_daemon_on_the_same_state_does_not_start(shared_desk, make_settings):
    from service.daemon import Daemon

    with pytest.raises(StateInUse, match="is in use by process"):
        Daemon(make_settings(shared_desk.daemon.paths.state))
    assert shared_desk.ask()["honed"]["checkpoint"] == shared_desk.serving
