"""From exceptions to one line on standard error and an exit code: `Error: …`, and `Try:
…` where there is a next step.
"""

import io
import sys

import click

from service import exits
from service.cli.terminal import line, shown
from service.client import BrokenOff, NoDaemon, Refused

STATUS_EXITS = {404: exits.NOT_FOUND, 409: exits.NOT_POSSIBLE, 400: exits.USAGE}


class CommandError(Exception):
    """A command that cannot be done, with its exit code and what to try."""

    def __init__(self, message: str, code: int = exits.FAILED, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


def run(group: click.Group) -> int:
    """Run the command line; returns the exit code."""
    try:
        result = group.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(shown(said.getvalue()), err=True, nl=False)
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        return _tell("stopped", exits.FAILED)
    except CommandError as error:
        return _tell(str(error), error.code, error.hint)
    except BrokenOff as error:
        return _tell(str(error), exits.NO_DAEMON, "honed status, and the daemon's log")
    except NoDaemon as error:
        return _tell(str(error), exits.NO_DAEMON, "honed serve, or set HONED_STATE to the directory of a running one")
    except Refused as error:
        return _tell(str(error), error.exit_code or STATUS_EXITS.get(error.status, exits.FAILED))
    return result if isinstance(result, int) else exits.OK


def _tell(message: str, code: int, hint: str | None = None) -> int:
    print(f"Error: {line(message)}", file=sys.stderr)  # noqa: T201 - the command line's voice
    if hint:
        print(f"Try: {line(hint)}", file=sys.stderr)  # noqa: T201
    return code
