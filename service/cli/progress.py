"""Progress of a run on the terminal, from its metrics lines."""

import time
from collections.abc import Callable
from typing import Any

from service.cli.common import client, in_path

POLL_SECONDS = 0.5
OVER = ("judged", "failed", "interrupted")
PHASES = {"load": "loading the model", "survey": "reading what must stay", "train": "training"}


def follow(run_id: str, *, is_quiet: bool) -> dict[str, Any]:
    """Wait for a run's end, showing a bar for each phase; returns the run."""
    if is_quiet:
        return _poll(run_id, lambda run: None)
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bars:
        tasks: dict[str, Any] = {}

        def show(run: dict[str, Any]) -> None:
            for line in run["metrics"]:
                name = PHASES.get(line["phase"], line["phase"])
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=line["total"], note="")
                note = f"loss {line['smoothed']:.3f}" if "smoothed" in line else ""
                bars.update(tasks[name], completed=line["step"], total=line["total"], note=note)

        return _poll(run_id, show)


def _poll(run_id: str, show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    while True:
        run = client().get(f"/operator/runs/{in_path(run_id)}")
        show(run)
        if run["state"] in OVER:
            return run
        time.sleep(POLL_SECONDS)
