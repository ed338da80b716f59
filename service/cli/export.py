"""`honed export`"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from service import exits
from service.cli.common import emit, json_option, paths, reach, short
from service.cli.errors import CommandError


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
    from service import ledger
    from store import artifacts
    from store.artifacts import ArtifactError

    if directory.exists():
        raise CommandError(f"{directory} exists; name a new directory", exits.USAGE)
    if not paths().ledger.exists():
        raise CommandError(f"{paths().state} holds no ledger yet", exits.NOT_FOUND, "honed serve")
    with ledger.read_only(paths()) as book:
        registry = book.registry
        base_id = ledger.pinned_base(book.audit)
        found = registry.checkpoint(checkpoint or registry.champion(base_id))
        if found is None:
            raise CommandError("the champion is the base; there is no adapter to export", exits.NOT_POSSIBLE)
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
    _write(directory, sealed.files, (paths().checkpoint(found.id) / artifacts.MANIFEST).read_bytes(), story)
    scope = found.manifest.get("scope")
    emit(
        {"checkpoint": found.id, "directory": str(directory), "scope": scope},
        as_json,
        lambda: click.echo("\n".join(told(found.id, directory, scope))),
    )


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
