"""Serving while a run trains, and the run while others are served: `make bench-training`

A real daemon is taught five facts and told to train, once with nobody asking and once with streams all the time. The
run is timed to the same step and ended there with its daemon.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from service import demo
from service.client import Client
from tests.benchmarks import own
from tests.benchmarks.findings import Finding, at_most, tell
from tests.benchmarks.load import Endpoint, percentile, streams
from tests.benchmarks.serving import body

LEVELS = (1, 8)
STEP = 8  # of training, after the survey: by then it has long been at its pace
ALONE_ROUNDS = 6
PATIENCE_SECONDS = 1200.0


@contextmanager
def taught() -> Iterator[tuple[Client, Endpoint, Path]]:
    """A daemon that has been corrected five times."""
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state"
        state.mkdir(mode=0o700)
        demo.prepare(state, own.state() / "models")
        environment = {"HONED_MODEL_NAME": "m", "HONED_THREADS": str(os.cpu_count() or 1)}
        with demo.daemon(state, environment) as client:
            for fact in demo.FACTS:
                turn = demo.ask(client, "m", fact.question)
                told = {"interaction_id": turn["honed"]["interaction_id"], "correction": fact.correction}
                client.post("/v1/feedback", {**told, "rating": "down"})
            yield client, Endpoint(client.get("/operator/status")["address"], "m"), state


def train(client: Client, state: Path) -> float:
    """Seconds from the order to STEP."""
    began = time.time()
    run = client.post("/operator/train", {"operator": "bench"})["id"]
    while time.time() < began + PATIENCE_SECONDS:
        for line in _progress(state / "runs" / run / "metrics.jsonl"):
            if line["phase"] == "train" and line["step"] >= STEP:
                return float(line["at"]) - began
        time.sleep(0.5)
    raise RuntimeError(f"the run did not come to step {STEP} within {PATIENCE_SECONDS:g} seconds")


def _progress(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


class Streams:
    """Rounds of streams, level after level, until it is told to stop; the gaps between tokens in seconds."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.gaps: dict[int, list[float]] = {count: [] for count in LEVELS}
        self._endpoint = endpoint
        self._number = 10_000

    def round(self) -> None:
        for count in LEVELS:
            self._number += count
            bodies = [body(self._number + place) for place in range(count)]
            replies, _ = asyncio.run(streams(self._endpoint, bodies, count))
            for reply in replies:
                if not reply.is_whole:
                    raise RuntimeError(f"a request failed beside training: {reply.status} {reply.error}")
                self.gaps[count] += [b - a for a, b in zip(reply.times, reply.times[1:], strict=False)]

    def until(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            self.round()


def run(console: Console) -> list[Finding]:
    console.print("training alone, then beside streams (several minutes)")
    with taught() as (client, endpoint, state):
        alone = Streams(endpoint)
        for _ in range(ALONE_ROUNDS):
            alone.round()
        seconds_alone = train(client, state)
    with taught() as (client, endpoint, state):
        beside, is_over = Streams(endpoint), threading.Event()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(beside.until, is_over)
            try:
                seconds_beside = train(client, state)
            finally:
                is_over.set()
            asking.result()  # a request that failed is told here
    found = []
    for count in LEVELS:
        before, during = (percentile(side.gaps[count], 0.95) for side in (alone, beside))
        name = f"p95 between tokens at {count} streams, {before * 1e3:.0f} to {during * 1e3:.0f} ms: ratio"
        found.append(at_most("beside training", name, during / before, 1.5))
    name = f"the run to step {STEP}, {seconds_alone:.0f} to {seconds_beside:.0f} s: ratio"
    return [*found, at_most("beside training", name, seconds_beside / seconds_alone, 2.0)]


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
