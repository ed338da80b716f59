"""A minute at ten times what the daemon can do: `make bench-overload`

First the daemon's capacity is taken with as many callers as it answers at once; then requests arrive at ten times that
rate, each on a connection of its own, whether or not earlier ones were answered.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from tests.benchmarks import own, peers
from tests.benchmarks.findings import Finding, at_least, at_most, exactly, tell
from tests.benchmarks.load import Endpoint, Reply, ask, percentile, streams
from tests.benchmarks.serving import story

PORT = 4713
TOKENS = 16
AT_ONCE = 32
SECONDS = 60.0
FACTOR = 10
SETTLE_SECONDS = 30.0  # scoring waits for a pause, and loads the embedder for the first time


def body(number: int) -> dict[str, Any]:
    return {"messages": story(number, 20), "max_tokens": TOKENS, "temperature": 0, "stream": number % 2 == 0}


async def storm(endpoint: Endpoint, per_second: float, tick: Any) -> tuple[list[Reply], float]:
    """Requests at this rate for a minute; all replies, and how many a second were really sent."""
    began, tasks = time.perf_counter(), []
    for number in range(int(per_second * SECONDS)):
        wait = began + number / per_second - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(ask(endpoint, body(100_000 + number))))
        tick(number / per_second)
    rate = len(tasks) / (time.perf_counter() - began)
    return list(await asyncio.gather(*tasks)), rate


async def measure(running: peers.Running, progress: Progress) -> list[Finding]:
    endpoint = Endpoint(running.url, running.peer.model)
    task = progress.add_task("capacity", total=SECONDS)
    await streams(endpoint, [body(number) for number in range(64)], AT_ONCE)
    replies, seconds = await streams(endpoint, [body(1000 + number) for number in range(400)], AT_ONCE)
    if not all(reply.is_whole for reply in replies):
        raise RuntimeError("the daemon refused as many callers as it answers at once; its capacity cannot be told")
    capacity = len(replies) / seconds
    normal = percentile([reply.seconds for reply in replies], 0.99)
    await asyncio.sleep(SETTLE_SECONDS)
    before = running.resident_bytes()
    progress.update(task, description=f"{FACTOR} × {capacity:.0f} requests a second")
    stormed, rate = await storm(endpoint, FACTOR * capacity, lambda at: progress.update(task, completed=at))
    after = running.resident_bytes()
    return [
        at_least("overload", f"requests a second for a minute, × the capacity of {capacity:.1f}", rate / capacity, 9.5),
        *judge(stormed, normal, after / before - 1),
    ]


def judge(stormed: list[Reply], normal: float, growth: float) -> list[Finding]:
    good = [reply for reply in stormed if reply.is_whole]
    refused = sum(reply.status == 429 for reply in stormed)
    others = Counter(str(r.status or r.error) for r in stormed if not r.is_whole and r.status != 429)
    said = f"neither a whole 200 nor 429{': ' if others else ''}{', '.join(others)}"
    busy = percentile([reply.seconds for reply in good], 0.99)
    return [
        Finding("overload", "answered, refused with 429", f"{len(good):,}, {refused:,}"),
        exactly("overload", said, others.total(), 0),
        at_most("overload", f"p99 {normal * 1e3:.0f} to {busy * 1e3:.0f} ms: ratio", busy / normal, 2.0),
        at_most("overload", "growth of resident memory", growth * 100, 10, " %"),
    ]


def run(console: Console) -> list[Finding]:
    own.CACHE.mkdir(parents=True, exist_ok=True)
    with Progress(console=console) as progress, tempfile.TemporaryDirectory() as logs:
        with peers.running(own.honed(os.cpu_count() or 1), PORT, Path(logs) / "log") as running:
            return asyncio.run(measure(running, progress))


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
