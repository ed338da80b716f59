"""`honed export`"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service import exits
from service.cli.common import emit, json_option, paths, reach, short
from service.cli.errors import CommandError
from service.cli.ledger import reading

if TYPE_CHECKING:
    from service.ledger import Ledger
    from store.records import Checkpoint


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--checkpoint", metavar="ID", help="Another checkpoint than the champion.")
@json_option
def command(directory: Path, checkpoint: str | None, as_json: bool) -> None:
    """Write a checkpoint (the champion) with its evaluation, verdict and signed approvals to a new DIRECTORY.

    The adapter is plain PEFT in safetensors: PEFT, vLLM and GGUF converters read it as it is. Only honed heeds its
    scope.safetensors, if it has one: elsewhere it answers everything.

    Example: honed export ./champion
    """
    from store import artifacts
    from store.artifacts import ArtifactError

    if directory.exists():
        raise CommandError(f"{directory} exists; name a new directory", exits.USAGE)
    with reading() as book:
        registry = book.registry
        found = _named(book, checkpoint) if checkpoint else _champion(book)
        try:
            sealed = artifacts.read(paths().checkpoint(found.id), found.id)
        except ArtifactError as error:
            raise CommandError(f"checkpoint {short(found.id)}: {error}", exits.FAILED) from None
        evaluation, verdict, head = registry.evaluation_of(found.id), registry.verdict_of(found.id), book.audit.head()
        story = {
            "checkpoint": asdict(found),
            "evaluation": asdict(evaluation) if evaluation else None,
            "verdict": asdict(verdict) if verdict else None,
            "approvals": [asdict(approval) for approval in registry.approvals_of(found.id)],
            "operators": [asdict(operator) for operator in registry.operators()],
            "audit_head": head.hash if head else None,
        }
    try:
        _write(directory, sealed.files, (paths().checkpoint(found.id) / artifacts.MANIFEST).read_bytes(), story)
    except OSError as error:
        raise CommandError(f"{directory} could not be written: {error}", exits.NOT_POSSIBLE) from None
    scope = found.manifest.get("scope")
    emit(
        {"checkpoint": found.id, "directory": str(directory), "scope": scope},
        as_json,
        lambda: click.echo("\n".join(told(found.id, directory, scope))),
    )


def _named(book: "Ledger", wanted: str) -> "Checkpoint":
    from store.database import StoreError

    try:
        found = book.registry.checkpoint(wanted)
    except StoreError as error:  # too short, or the beginning of several
        raise CommandError(str(error), exits.NOT_FOUND) from None
    if found is None:
        raise CommandError(f"no checkpoint begins with {wanted!r}", exits.NOT_FOUND, "honed status, or honed runs")
    return found


def _champion(book: "Ledger") -> "Checkpoint":
    from service.ledger import pinned_base

    try:
        found = book.registry.checkpoint(book.registry.champion(pinned_base(book.audit)))
    except LookupError as error:
        raise CommandError(str(error), exits.NOT_FOUND) from None
    if found is None:
        raise CommandError("the champion is the base; there is no adapter to export", exits.NOT_POSSIBLE)
    return found


def told(checkpoint_id: str, directory: Path, scope: Mapping[str, Any] | None) -> list[str]:
    """What was written where, and what of it other programs do not know."""
    lines = [f"{short(checkpoint_id)} is in {directory}"]
    if scope:
        lines.append(
            f"here it {reach(scope)}; that does not go with it: PEFT, vLLM and GGUF converters apply it to everything"
        )
    return lines


def _write(directory: Path, files: dict[str, bytes], manifest: bytes, story: Mapping[str, object]) -> None:
    adapter = directory / "adapter"
    adapter.mkdir(parents=True)
    for name, data in files.items():
        (adapter / name).write_bytes(data)
    (adapter / "manifest.json").write_bytes(manifest)
    (directory / "story.json").write_text(
        json.dumps(story, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
