"""service.units: what the unit says, what systemd itself makes of it, and how it is put in place."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from service import units

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing; on Debian: apt-get install systemd"
)
SYSTEM_ONLY = ("DynamicUser", "StateDirectory", "ProtectHome", "ProtectProc", "ProtectControlGroups", "RemoveIPC")
SHARED = (
    "Type=notify",
    "NotifyAccess=main",
    "WatchdogSec=30",
    "Restart=always",
    "RestartSec=1",
    "TimeoutStopSec=60",
    "KillMode=mixed",
    "OOMPolicy=continue",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "PrivateUsers=yes",
    "CapabilityBoundingSet=",
    "UMask=0077",
    "Environment=OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
)


def rendered(*, user_unit: bool, executable: Path = Path("/bin/true"), state: Path | None = None, **environment: str):
    return units.render(executable=executable, user_unit=user_unit, state=state, environment=environment)


def settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith(("#", "["))]


def keys(text: str) -> set[str]:
    return {line.partition("=")[0] for line in settings(text)}


def analyze(*arguments: str, text: str, user_unit: bool, folder: Path) -> subprocess.CompletedProcess[str]:
    unit = folder / units.NAME
    unit.write_text(text, encoding="utf-8")
    scope = ["--user"] if user_unit else []
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    command = ["systemd-analyze", *scope, *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


@pytest.mark.parametrize("user_unit", [False, True])
def test_both_forms_supervise_and_harden_alike(user_unit):
    lines = settings(rendered(user_unit=user_unit))
    assert set(SHARED) <= set(lines)
    assert 'ExecStart="/bin/true" serve' in lines
    assert not [line for line in lines if line.startswith("@") or "${" in line]


def test_the_system_unit_runs_as_nobody_in_particular_and_sees_no_home():
    lines = settings(rendered(user_unit=False))
    assert {"DynamicUser=yes", 'StateDirectory="honed"', "ProtectHome=yes", "WantedBy=multi-user.target"} <= set(lines)
    assert 'Environment="HONED_STATE=/var/lib/honed"' in lines


def test_the_user_unit_closes_the_key_folder_and_opens_only_the_state():
    text = rendered(user_unit=True)
    (closed, *_) = [line for line in settings(text) if line.startswith("InaccessiblePaths=-%h")]
    assert "-%h/.config/honed/keys" in closed.removeprefix("InaccessiblePaths=").split()
    assert 'ReadWritePaths="%h/.local/state/honed"' in settings(text)
    assert 'Environment="HONED_STATE=%h/.local/state/honed"' in settings(text)
    assert "WantedBy=default.target" in settings(text)


@pytest.mark.parametrize("user_unit", [False, True])
def test_a_key_folder_elsewhere_is_closed_as_well(user_unit, tmp_path):
    text = units.render(
        executable=Path("/bin/true"), user_unit=user_unit, state=None, environment={}, keys=Path("/srv/my keys")
    )
    assert 'InaccessiblePaths=-%E/honed/keys "-/srv/my keys"' in settings(text)
    if shutil.which("systemd-analyze"):
        assert analyze("verify", "--man=no", text=text, user_unit=user_unit, folder=tmp_path).stderr == ""


def test_the_user_unit_has_no_option_that_a_user_manager_cannot_apply():
    text = rendered(user_unit=True)
    assert not keys(text) & {*SYSTEM_ONLY, "OOMScoreAdjust", "User", "Group", "IPAddressDeny", "ProcSubset"}
    # The walls that need a mount namespace stand only inside a user namespace.
    assert "PrivateUsers=yes" in settings(text)


def test_a_state_of_ones_own_is_used_in_every_place():
    user = settings(rendered(user_unit=True, state=Path("/srv/honed state")))
    assert {'ReadWritePaths="/srv/honed state"', 'Environment="HONED_STATE=/srv/honed state"'} <= set(user)
    system = settings(rendered(user_unit=False, state=Path("/var/lib/team/honed")))
    assert {'StateDirectory="team/honed"', 'Environment="HONED_STATE=/var/lib/team/honed"'} <= set(system)


def test_an_operators_environment_comes_after_ours_and_wins():
    lines = settings(rendered(user_unit=True, OMP_WAIT_POLICY="ACTIVE", HONED_PORT="4663", HONED_MAX_TOKENS="512"))
    ours = lines.index("Environment=OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0")
    assert ours < lines.index('Environment="OMP_WAIT_POLICY=ACTIVE"')
    assert 'Environment="HONED_PORT=4663"' in lines


def test_values_are_quoted_as_systemd_reads_them():
    lines = settings(rendered(user_unit=True, HONED_NOTE='50% "off" \\ $HOME'))
    assert r'Environment="HONED_NOTE=50%% \"off\" \\ $HOME"' in lines


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"A B": "1"}, "no name"),
        ({"A": "1\nExecStartPre=/bin/sh"}, "line breaks"),
        ({"HONED_STATE": "/x"}, "state directory"),
        ({"HF_TOKEN": "hf_x"}, "EnvironmentFile"),
    ],
)
def test_an_environment_that_would_not_arrive_as_given_is_refused(environment, message):
    with pytest.raises(units.UnitError, match=message):
        units.render(executable=Path("/bin/true"), user_unit=True, state=None, environment=environment)


@pytest.mark.parametrize(
    ("user_unit", "state", "message"),
    [
        (True, "relative", "absolute"),
        (True, "/srv/../etc", "absolute"),
        (True, "/var/tmp/honed", "own empty /tmp"),  # noqa: S108 - refused, not used
        (False, "/srv/honed", "/var/lib"),
        (False, "/var/lib", "/var/lib"),
    ],
)
def test_a_state_the_unit_could_not_use_is_refused(user_unit, state, message):
    with pytest.raises(units.UnitError, match=message):
        rendered(user_unit=user_unit, state=Path(state))


def test_an_executable_the_unit_could_not_run_is_refused(tmp_path):
    with pytest.raises(units.UnitError, match="absolute"):
        rendered(user_unit=True, executable=Path("honed"))
    with pytest.raises(units.UnitError, match="quote or a backslash"):
        rendered(user_unit=True, executable=Path('/opt/the "new" one/honed'))
    with pytest.raises(units.UnitError, match="home directory"):
        rendered(user_unit=False, executable=Path("/home/ada/.local/bin/honed"))
    (tmp_path / "python").symlink_to("/root/.local/share/uv/python")
    with pytest.raises(units.UnitError, match="its Python"):
        rendered(user_unit=False, executable=tmp_path / "honed")
    assert rendered(user_unit=True, executable=Path("/home/ada/.local/bin/honed"))


@needs_systemd
@pytest.mark.parametrize("user_unit", [False, True])
def test_systemd_finds_nothing_to_complain_about(user_unit, tmp_path):
    executable = tmp_path / "a b$c%d é" / "honed"  # verify looks for it: the quoting must be right
    executable.parent.mkdir()
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    text = rendered(user_unit=user_unit, executable=executable, HONED_NOTE='50% "off" \\ $HOME')
    result = analyze("verify", "--man=no", text=text, user_unit=user_unit, folder=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize(("user_unit", "limit"), [(False, 1.5), (True, 2.5)])
def test_the_exposure_that_systemd_computes_stays_low(user_unit, limit, tmp_path):
    text = rendered(user_unit=user_unit)
    result = analyze("security", "--offline=true", "--no-pager", text=text, user_unit=user_unit, folder=tmp_path)
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert exposure, result.stderr
    assert float(exposure.group(1)) <= limit


def test_a_user_unit_is_installed_with_its_folders(tmp_path):
    installed = units.install(executable=Path("/bin/true"), user_unit=True, state=None, environment={}, home=tmp_path)
    assert installed.path == tmp_path / ".config/systemd/user/honed.service"
    assert installed.path.read_text(encoding="utf-8") == rendered(user_unit=True)
    assert stat.S_IMODE(installed.path.stat().st_mode) == 0o644
    for private in (".config/honed/keys", ".local/state/honed"):
        assert stat.S_IMODE((tmp_path / private).stat().st_mode) == 0o700
    assert "systemctl --user enable --now honed" in installed.next_commands


def test_a_system_unit_replaces_the_former_one_whole_and_leaves_nothing_beside_it(tmp_path):
    (tmp_path / units.NAME).write_text("old")
    installed = units.install(
        executable=Path("/bin/true"), user_unit=False, state=None, environment={}, system_directory=tmp_path
    )
    assert installed.path.read_text(encoding="utf-8") == rendered(user_unit=False)
    assert [path.name for path in tmp_path.iterdir()] == [units.NAME]
    assert installed.next_commands[0] == "sudo systemctl daemon-reload"


def test_a_refused_unit_leaves_the_former_one_alone(tmp_path):
    (tmp_path / units.NAME).write_text("old")
    with pytest.raises(units.UnitError):
        units.install(executable=Path("honed"), user_unit=False, state=None, environment={}, system_directory=tmp_path)
    assert (tmp_path / units.NAME).read_text() == "old"
