"""What the two child processes share: a quiet, offline, bounded start, the base from its directory,
and a told failure.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.rundir import RunDirectory

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TAKEN = 3
SPINS = "2000"  # the setting of GNU's OpenMP, in looks


def set_environment(threads: int) -> None:
    """Before torch loads: no network, no telemetry, and threads that soon yield: one that waits for another looks again
    for some microseconds before it sleeps, which makes training a third quicker, and leaves the cores to serving.
    """
    os.environ.update(
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        DO_NOT_TRACK="1",
        TOKENIZERS_PARALLELISM="false",
        OMP_WAIT_POLICY="PASSIVE",
        GOMP_SPINCOUNT=SPINS,
        OMP_NUM_THREADS=str(threads),
    )


def load_for_training(job: dict[str, Any]) -> Any:
    """The base model that `run.json` names, on its device."""
    from agent.model import choose_device, choose_dtype, load_base

    directory = Path(job["base_dir"])
    device = choose_device(job["device"])
    return load_base(_files(directory), directory, device, choose_dtype(device, job["dtype"]))


def load_served(job: dict[str, Any], *, max_waiting: int) -> Any:
    """The base model that `evaluation.json` names, loaded as the daemon loads it, with room for so many requests."""
    from agent.serving import EngineSettings, ModelLoader

    directory = Path(job["base_dir"])
    settings = EngineSettings(
        device=job["device"],
        dtype=job["dtype"],
        quantization=job["quantization"],
        threads=job["threads"],
        max_batch=32,
        max_waiting=max_waiting,
        max_context=job["max_context"],
        kernels=Path(job["kernels"]) if job["kernels"] else None,
    )
    return ModelLoader(_files(directory), directory, job["base_id"], settings)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def main(input_name: str, work: Callable[[RunDirectory, dict[str, Any]], None]) -> int:
    """`python -m agent.… DIRECTORY`: run `work`, and leave `error.json` when it fails."""
    if len(sys.argv) != 2:
        print(f"usage: python -m agent.{Path(sys.argv[0]).stem} DIRECTORY", file=sys.stderr)  # noqa: T201 - a child's only voice
        return EXIT_USAGE
    run = RunDirectory(Path(sys.argv[1]))
    if not run.claim():
        print(f"another process works in {run.path} already; this one ends", file=sys.stderr)  # noqa: T201
        return EXIT_TAKEN
    try:
        job = run.read(input_name)
        set_environment(int(job["threads"]))
        work(run, job)
    except Exception as error:  # noqa: BLE001 - the process's outermost frame
        traceback.print_exc()
        run.write("error.json", {"type": type(error).__name__, "message": str(error)})
        return EXIT_FAILED
    run.done()
    return 0
