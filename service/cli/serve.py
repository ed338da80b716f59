"""`honed serve`"""

import os
import sys

import click

from service import exits
from service.cli.common import settings
from service.cli.errors import CommandError

ELSEWHERE = "set HONED_STATE to a directory that you may write, with room on its disk"

NEXT_STEPS = """
honed is listening on {address}

  page       {address}/
  endpoint   {address}/v1   (OpenAI-compatible, model {model})
  talk       honed chat
  correct    honed feedback ID --down --correction "…"
  learn      honed train --wait, then honed review and honed approve

State is in {state}. Stop with Ctrl-C.
"""


@click.command()
def command() -> None:
    """Start the daemon in the foreground; Ctrl-C or SIGTERM drains and stops it.

    Example: HONED_PORT=8080 honed serve
    """
    quiet_threads()
    from service import logs

    chosen = settings()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    logs.configure(chosen.log_json)
    _serve(chosen)


def quiet_threads() -> None:
    """Before torch loads: waiting threads yield instead of spinning (one other busy process costs 20 times
    otherwise).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.update(
        HF_HUB_OFFLINE=os.environ.get("HF_HUB_OFFLINE", "0"), HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )


def _serve(chosen: "Settings") -> None:  # type: ignore[name-defined]  # noqa: F821
    from agent.serving import LoadError
    from agent.source import SourceError
    from service.daemon import Daemon
    from service.lock import StateInUse
    from service.stores import PinMoved
    from store.artifacts import ArtifactError
    from store.database import StoreError

    if sys.stderr.isatty():
        click.echo("Loading the model …", err=True)
    try:
        daemon = Daemon(chosen, announce=announce)
    except (StateInUse, LoadError, ValueError) as error:  # too small a machine, or without what a setting asks for
        raise CommandError(str(error), exits.NOT_POSSIBLE) from None
    except OSError as error:
        raise CommandError(f"{chosen.state} cannot be used: {error}", exits.NOT_POSSIBLE, ELSEWHERE) from None
    except (SourceError, ArtifactError, PinMoved) as error:
        raise CommandError(str(error), exits.UNAVAILABLE) from None
    except StoreError as error:
        raise CommandError(str(error), exits.FAILED) from None
    try:
        daemon.run()
    except OSError as error:
        raise CommandError(str(error), exits.NOT_POSSIBLE) from None


def announce(address: str, model: str, state: str) -> None:
    """Once the sockets are open."""
    click.echo(NEXT_STEPS.format(address=address, model=model, state=state))
