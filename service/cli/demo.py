"""`honed demo`"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from service import exits
from service.cli.common import emit, json_option, settings, table
from service.cli.errors import CommandError
from service.cli.serve import ELSEWHERE


@click.command()
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the demo's state in this new directory."
)
@json_option
def command(keep: Path | None, as_json: bool) -> int:
    """See the whole cycle on the real model: five invented facts, corrected, trained, measured, approved, rolled back.
    Takes some minutes on two cores, and touches nothing of your own state.

    Example: honed demo --keep /tmp/honed-demo
    """
    if keep is not None and keep.exists():
        raise CommandError(f"{keep} exists; name a new directory", exits.USAGE)
    own_models = _fetched(is_quiet=as_json)
    if keep is not None:
        result = _run(_made(keep), own_models, is_quiet=as_json)
    else:
        with tempfile.TemporaryDirectory(prefix="honed-demo-") as state:
            result = _run(Path(state), own_models, is_quiet=as_json)
    emit(_json(result), as_json, lambda: _show(result))
    return exits.OK if result.is_success else exits.FAILED


def _fetched(*, is_quiet: bool) -> Path:
    """Where the models lie that the demo is to link in."""
    from agent.source import SourceError
    from service import models

    chosen = settings()
    try:
        chosen.paths.create()
        for source in (chosen.model, chosen.embedder):
            models.ensure(source, chosen.paths.models, quiet=is_quiet)
    except SourceError as error:
        raise CommandError(str(error), exits.UNAVAILABLE) from None
    except OSError as error:
        raise CommandError(f"{chosen.state} cannot be used: {error}", exits.NOT_POSSIBLE, ELSEWHERE) from None
    return chosen.paths.models


def _made(keep: Path) -> Path:
    """Whole, since the daemon's children work elsewhere."""
    try:
        keep.mkdir(parents=True)
    except OSError as error:  # also when somebody else made it meanwhile
        raise CommandError(f"{keep} cannot be made: {error}", exits.USAGE, "--keep with another directory") from None
    return keep.resolve()


def _run(state: Path, models: Path, *, is_quiet: bool) -> Any:
    from service import demo

    demo.prepare(state, models)
    os.environ.update(HONED_STATE=str(state), HONED_KEYS=str(state / "operator-keys"))
    from service.cli import review
    from service.cli.progress import follow

    def say(text: str) -> None:
        if not is_quiet:
            click.secho(f"▸ {text} …", bold=True)
            sys.stdout.flush()

    say("Starting a daemon on a state directory of its own")
    stage = demo.Stage(
        say,
        lambda run_id: follow(run_id, is_quiet=is_quiet),
        lambda found: None if is_quiet else review.show(found),
    )
    try:
        with demo.daemon(state, {}) as client:
            return demo.run(client, approve, stage)
    except demo.DemoFailed as error:
        raise CommandError(str(error), exits.FAILED) from None


def approve(checkpoint: str) -> dict[str, Any]:
    """As an operator would: make a key, introduce oneself, sign."""
    from service.cli.deciding import decide
    from service.cli.operator import introduce_operator
    from store.records import Decision

    introduce_operator("demo", None)
    return decide(
        checkpoint,
        Decision.APPROVE,
        reason="the demo's operator says yes",
        operator="demo",
        days=1.0,
        is_sure=True,
        is_quiet=True,
    )


def _show(result: Any) -> None:
    from service.demo import FACTS

    def mark(fact: Any, answer: str) -> str:
        return ("✓ " if fact.is_known(answer) else "✗ ") + answer

    columns = zip(FACTS, result.before, result.asked, result.paraphrased, strict=True)
    rows = [[f.question, b, mark(f, a), f"{f.paraphrase}\n{mark(f, p)}"] for f, b, a, p in columns]
    table("Before and after", ["question", "before", "after", "in other words"], rows)
    kept = f"{result.retention_kept}/{result.retention_total}"
    click.echo(
        f"as asked {result.num_asked}/{len(FACTS)}, in other words {result.num_paraphrased}/{len(FACTS)}, "
        f"kept {kept} of what the base knew"
    )
    click.echo(f"after rollback the answers are {'byte for byte' if result.is_restored else 'NOT'} those of before")
    click.secho(f"{'success' if result.is_success else 'NOT REACHED'} in {result.seconds:.0f} seconds", bold=True)


def _json(result: Any) -> dict[str, Any]:
    from dataclasses import asdict

    figures = {"asked_right": result.num_asked, "paraphrased_right": result.num_paraphrased}
    return {**asdict(result), **figures, "is_restored": result.is_restored, "is_success": result.is_success}
