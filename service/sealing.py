"""A finished adapter becomes a sealed checkpoint: its files, where it answers, and the story of its making."""

import shutil
from pathlib import Path
from typing import Any

from agent.checkpoint import read, scaled, scope_in
from agent.rundir import RunDirectory
from agent.scope import SCOPE_FILE
from service.paths import Paths
from store import artifacts
from store.records import Checkpoint, TrainingRun


def seal(paths: Paths, run: TrainingRun, *, champion: str, at: float, share: float = 1.0) -> Checkpoint:
    """The published checkpoint of a run's adapter; with a `share` below 1, of so much of what it adds to the base."""
    directory = paths.run(run.id)
    staged = directory / "checkpoint"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    files = read(directory / "adapter")
    for name, data in (scaled(files, share) if share < 1 else files).items():
        (staged / name).write_bytes(data)
    if (directory / SCOPE_FILE).exists():  # as the daemon wrote it: training has nothing to do with it
        shutil.copyfile(directory / SCOPE_FILE, staged / SCOPE_FILE)
    meta = _meta(directory, run, champion) | ({"share": share} if share < 1 else {})
    checkpoint_id = artifacts.seal(staged, meta)
    artifacts.publish(staged, paths.checkpoint(checkpoint_id))
    return Checkpoint(checkpoint_id, at, run.id, run.base_id, champion, run.snapshot_id, meta)


def _meta(directory: Path, run: TrainingRun, champion: str) -> dict[str, Any]:
    scope = scope_in(directory)
    result = RunDirectory(directory).read("result.json")
    return {
        "kind": "checkpoint",
        "run": run.id,
        "base": run.base_id,
        "parent": champion,
        "dataset": run.snapshot_id,
        "recipe": dict(run.recipe),
        "versions": result.pop("versions"),
        "training": result,
        **({"scope": scope.told()} if scope else {}),
    }
