"""Where the state lies is the same for the daemon, its children and the command line, however it was named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service import exits
from service.config import Settings
from service.paths import Paths, key_directory, state_directory
from tests.service.shells import ROOT, Here


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's home, in which they are; no setting reaches it from outside."""
    for name in [name for name in os.environ if name.startswith("HONED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path.resolve()


@pytest.mark.parametrize("named", ["state", "./state", "~/state", "other/../state", "$HOME/state"])
def test_a_relative_or_home_path_is_made_whole_in_both_places(home, monkeypatch, named):
    monkeypatch.setenv("HONED_STATE", named.replace("$HOME", str(home)))
    monkeypatch.setenv("HONED_KEYS", named.replace("$HOME", str(home)))
    assert Settings().state == state_directory() == key_directory() == home / "state"
    assert Settings().paths == Paths(home / "state")


def test_a_path_named_in_code_or_in_the_file_is_made_whole_too(home, monkeypatch):
    assert Settings(state=Path("~/here")).state == home / "here"
    monkeypatch.setenv("HONED_STATE", "state")
    (home / "state").mkdir()
    (home / "state" / "honed.toml").write_text("port = 5000\n")
    assert (Settings().port, Settings().state) == (5000, home / "state")


def test_an_empty_name_is_none(home, monkeypatch):
    monkeypatch.setenv("HONED_STATE", "")
    assert Settings().state == state_directory() != home


def test_a_child_that_works_elsewhere_finds_the_same_state(home, monkeypatch):
    """What the daemon hands down is what its settings say."""
    monkeypatch.setenv("HONED_STATE", "state")
    environment = {**os.environ, "HONED_STATE": str(Settings().state), "PYTHONPATH": str(ROOT)}
    script = "from service.paths import state_directory; print(state_directory())"
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd="/", capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(home / "state")


@pytest.mark.parametrize("command", [("status",), ("fetch",), ("audit", "verify")], ids=lambda command: command[0])
def test_the_home_of_nobody_is_told_in_one_line(command):
    shell = Here(Path("~nobody-at-all/state"))
    assert "~nobody-at-all" in shell.fails(exits.USAGE, *command)
