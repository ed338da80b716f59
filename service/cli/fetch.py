"""`honed fetch`"""

import os

import click

from service import exits
from service.cli.common import emit, json_option, settings, short
from service.cli.errors import CommandError
from service.cli.serve import ELSEWHERE


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Fetch the base model and the embedder, check their digests, and keep them for use offline.

    Example: HONED_MODEL=/path/to/a/model honed fetch
    """
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1", TOKENIZERS_PARALLELISM="false")
    from agent.source import SourceError
    from service import models

    chosen = settings()
    try:
        chosen.paths.create()
        ready = {name: models.ensure(text, chosen.paths.models, quiet=as_json) for name, text in _wanted(chosen)}
    except SourceError as error:
        raise CommandError(str(error), exits.UNAVAILABLE) from None
    except OSError as error:
        raise CommandError(f"{chosen.state} cannot be used: {error}", exits.NOT_POSSIBLE, ELSEWHERE) from None
    value = {name: {"id": model.id, "name": model.name, "path": str(model.path)} for name, model in ready.items()}

    def text() -> None:
        for name, model in ready.items():
            click.echo(f"{name}: {model.name} {short(model.id)} in {model.path}")

    emit(value, as_json, text)


def _wanted(chosen: "Settings") -> list[tuple[str, str]]:  # type: ignore[name-defined]  # noqa: F821
    return [("base", chosen.model), ("embedder", chosen.embedder)]
