"""`honed install-service`"""

import os
import shutil
import sys
from pathlib import Path

import click

from service import exits
from service.cli.common import emit, json_option
from service.cli.errors import CommandError
from service.paths import key_directory, state_directory


def _settings_here() -> dict[str, str]:
    """HONED_… settings of this shell go into the unit; where state and keys lie is the unit's own business."""
    own = ("HONED_STATE", "HONED_KEYS")
    return {name: value for name, value in os.environ.items() if name.startswith("HONED_") and name not in own}


@click.command()
@click.option("--user", "is_user", is_flag=True, help="For this user only (systemd --user), without root.")
@json_option
def command(is_user: bool, as_json: bool) -> None:
    """Install the hardened systemd unit and print the commands that start it.

    Example: honed install-service --user
    """
    from service.units import UnitError, install

    found = shutil.which("honed", path=str(Path(sys.executable).parent)) or shutil.which("honed")
    if found is None:
        raise CommandError("the honed script is not on the path; install the package first", exits.NOT_POSSIBLE)
    try:
        installed = install(
            executable=Path(found),
            user_unit=is_user,
            state=state_directory() if is_user else None,
            keys=key_directory() if is_user else None,
            environment=_settings_here(),
        )
    except (UnitError, PermissionError) as error:
        raise CommandError(
            str(error), exits.NOT_POSSIBLE, "honed install-service --user, or as root without it"
        ) from None

    def text() -> None:
        click.echo(f"wrote {installed.path}; next:")
        for line in installed.next_commands:
            click.echo(f"  {line}")

    emit({"path": str(installed.path), "next": list(installed.next_commands)}, as_json, text)
