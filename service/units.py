"""The systemd unit: the template filled in for one machine, and written to where systemd looks for it.

In systemd/honed.service a line that starts with "@system " or "@user " goes into that form only. Starting the
unit is left to the person; `install` says what to type.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from store.connection import sync_directory

NAME = "honed.service"
SYSTEM_STATE = Path("/var/lib/honed")
HIDDEN_BY_PROTECT_HOME = ("/home", "/root", "/run/user")
HIDDEN_BY_PRIVATE_TMP = ("/tmp", "/var/tmp")  # noqa: S108 - refused, not used
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|KEY)$", re.IGNORECASE)  # not HONED_MAX_TOKENS


class UnitError(Exception):
    """The unit cannot be written as asked; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Installed:
    path: Path
    next_commands: tuple[str, ...]


def render(
    *, executable: Path, user_unit: bool, state: Path | None, environment: Mapping[str, str], keys: Path | None = None
) -> str:
    """The unit's text. Without `state` it is ~/.local/state/honed, or /var/lib/honed for the system unit.

    `keys` is a folder of operators' private keys to close besides the usual ones.
    """
    _check_executable(executable, user_unit=user_unit)
    _check_state(state)
    template = Template(files("service").joinpath("systemd", NAME).read_text(encoding="utf-8"))
    text = template.substitute(
        executable=_quoted(str(executable)),
        state="%h/.local/state/honed" if state is None and user_unit else _escaped(str(state or SYSTEM_STATE)),
        state_directory="" if user_unit else _state_directory(state or SYSTEM_STATE),
        keys=f' "-{_escaped(str(keys))}"' if keys else "",
        environment="\n".join(_assignment(name, value) for name, value in sorted(environment.items())),
    )
    return _form(text, kept="@user " if user_unit else "@system ")


def install(
    *,
    executable: Path,
    user_unit: bool,
    state: Path | None,
    environment: Mapping[str, str],
    keys: Path | None = None,
    home: Path | None = None,
    system_directory: Path = Path("/etc/systemd/system"),
) -> Installed:
    text = render(executable=executable, user_unit=user_unit, state=state, environment=environment, keys=keys)
    if not user_unit:
        return Installed(_write(system_directory / NAME, text), _next_commands(user_unit=False))
    home = home or Path.home()
    _make_private(state or home / ".local/state/honed")
    # Made now, since systemd can only close a folder that is there when the daemon starts.
    _make_private(keys or home / ".config/honed/keys")
    return Installed(_write(home / ".config/systemd/user" / NAME, text), _next_commands(user_unit=True))


def _check_executable(executable: Path, *, user_unit: bool) -> None:
    if not executable.is_absolute():
        raise UnitError(f"systemd needs the absolute path of the honed command, got {executable}")
    if set(str(executable)) & set("\"'\\"):
        raise UnitError(f"systemd runs no command whose path holds a quote or a backslash, got {executable}; move it")
    # A link into somebody's home, or an interpreter that lives there, is as invisible as the home itself.
    seen = [executable, executable.resolve(), (executable.parent / "python").resolve()]
    if not user_unit and any(path.is_relative_to(home) for path in seen for home in HIDDEN_BY_PROTECT_HOME):
        raise UnitError(
            f"{executable} or its Python lies in a home directory, which a system unit cannot see; "
            "install honed under /opt, or make it a user unit"
        )


def _check_state(state: Path | None) -> None:
    if state is None:
        return
    if not state.is_absolute() or ".." in state.parts:
        raise UnitError(f"the state directory must be an absolute path without '..', got {state}")
    if any(state.is_relative_to(temporary) for temporary in HIDDEN_BY_PRIVATE_TMP):
        raise UnitError(f"the unit has its own empty /tmp and would not find {state}; choose a lasting place")


def _state_directory(state: Path) -> str:
    if not state.is_relative_to("/var/lib") or state == Path("/var/lib"):
        raise UnitError(
            f"a system unit keeps its state below /var/lib, got {state}; "
            f"leave it out for {SYSTEM_STATE}, or make it a user unit"
        )
    return _quoted(str(state.relative_to("/var/lib")))


def _assignment(name: str, value: str) -> str:
    if not VARIABLE_NAME.fullmatch(name):
        raise UnitError(f"{name!r} is no name for an environment variable")
    if name == "HONED_STATE":
        raise UnitError("give HONED_STATE as the state directory, not among the environment variables")
    if SECRET_NAME.search(name):
        raise UnitError(f"everybody can read the unit; put {name} in a file of mode 0600 named by EnvironmentFile=")
    return "Environment=" + _quoted(f"{name}={value}")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    if not text.isprintable():
        raise UnitError(f"a unit file cannot hold line breaks or control characters, got {text!r}")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _form(text: str, *, kept: str) -> str:
    lines = [line.removeprefix(kept) for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("@system ", "@user "))) + "\n"


def _make_private(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, text: str) -> Path:
    """Whole or not at all: a half-written unit would be started at the next boot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_directory(path.parent)
    return path


def _next_commands(*, user_unit: bool) -> tuple[str, ...]:
    if not user_unit:
        return (
            "sudo systemctl daemon-reload",
            "sudo systemctl enable --now honed",
            "journalctl -u honed -f",
        )
    return (
        "systemctl --user daemon-reload",
        "systemctl --user enable --now honed",
        'loginctl enable-linger "$USER"  # so that it also runs while you are logged out',
        "journalctl --user -u honed -f",
    )
