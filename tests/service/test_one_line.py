"""What cannot be done is told in one line with its value, a next step and its exit code; no command ends in Python."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from service import exits, ledger
from service.paths import Paths
from tests import device
from tests.service.shells import Here, Shell


@pytest.fixture
def shell(tmp_path: Path, tiny_llama: Path, tiny_embedder: Path) -> Here:
    settings = {"MODEL": tiny_llama, "EMBEDDER": tiny_embedder, "PORT": 0, "DEVICE": device.NAME, "THREADS": 1}
    return Here(tmp_path / "s", {f"HONED_{name}": str(value) for name, value in settings.items()})


def with_(shell: Shell, **settings: str) -> Shell:
    """In a process of its own: what loads a model sets up more than a test may leave behind."""
    changes = {f"HONED_{name}": value for name, value in settings.items()}
    return Shell(shell.state, {**shell.settings, **changes, "TQDM_DISABLE": "1"})


LEDGER_COMMANDS = [
    ("audit", "verify"),
    ("audit", "log"),
    ("export", "somewhere"),
    ("rollback", "--reason", "because"),
]


@pytest.mark.parametrize("command", LEDGER_COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_ledger_that_cannot_be_read_is_named(shell, command):
    shell.state.mkdir()
    (shell.state / "ledger.db").write_bytes(b"this was a ledger once" * 100)
    said = shell.fails(exits.FAILED, *command)
    assert str(shell.state / "ledger.db") in said
    assert "Try: restore ledger.db" in said


@pytest.mark.parametrize(
    ("command", "code"),
    [(("export", "somewhere"), exits.NOT_FOUND), (("rollback", "--reason", "because"), exits.NOT_POSSIBLE)],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_ledger_without_a_base_asks_for_a_first_start(shell, command, code):
    Paths(shell.state).create()
    with ledger.opened(Paths(shell.state)):
        pass
    assert "no base is on record yet; start the daemon once" in shell.fails(code, *command)


def test_serving_with_weights_that_this_machine_cannot_have_says_which_setting(shell):
    said = with_(shell, QUANTIZATION="int8", DTYPE="float32").fails(exits.NOT_POSSIBLE, "serve")
    assert "HONED_QUANTIZATION" in said


def test_serving_a_model_that_says_nothing_sensible_is_refused(shell, tmp_path, tiny_llama):
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}, broken / "model.safetensors"
    )
    said = with_(shell, MODEL=str(broken), DTYPE="float32").fails(exits.NOT_POSSIBLE, "serve")
    assert "failed its smoke test" in said


@pytest.mark.parametrize("command", [("serve",), ("fetch",), ("demo",)], ids=lambda command: command[0])
def test_a_state_that_cannot_be_a_directory_is_named(shell, tmp_path, command):
    (tmp_path / "file").write_text("no directory")
    said = Shell(tmp_path / "file" / "s", shell.settings).fails(exits.NOT_POSSIBLE, *command)
    assert str(tmp_path / "file") in said
    assert "Try: set HONED_STATE" in said


def test_a_demo_without_its_model_names_it(shell):
    shell = Here(shell.state, {**shell.settings, "HONED_MODEL": "/no/such/model"})
    assert "/no/such/model" in shell.fails(exits.UNAVAILABLE, "demo")


def test_a_demo_is_kept_in_a_new_directory_only(shell, tmp_path):
    (tmp_path / "kept").mkdir()
    assert f"{tmp_path / 'kept'} exists" in shell.fails(exits.USAGE, "demo", "--keep", str(tmp_path / "kept"))
    assert not shell.state.exists()
    (tmp_path / "file").write_text("no directory")
    assert "cannot be made" in shell.fails(exits.USAGE, "demo", "--keep", str(tmp_path / "file" / "kept"))
