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
from tests.benchmarks.load import Endpoint, Reply, ask, percentile, streams
from tests.benchmarks.serving import story

PORT = 4713
TOKENS = 16
AT_ONCE = 32
SECONDS = 60.0
FACTOR = 10


def body(number: int) -> dict[str, Any]:
    return {"messages": story(number, 20), "max_tokens": TOKENS, "temperature": 0, "stream": number % 2 == 0}


async def storm(endpoint: Endpoint, per_second: float, tick: Any) -> list[Reply]:
    """Requests at this rate for a minute; all replies."""
    began, tasks = time.perf_counter(), []
    for number in range(int(per_second * SECONDS)):
        wait = began + number / per_second - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(ask(endpoint, body(100_000 + number))))
        tick(number / per_second)
    return list(await asyncio.gather(*tasks))


async def measure(running: peers.Running, progress: Progress) -> dict[str, Any]:
    endpoint = Endpoint(running.url, running.peer.model)
    task = progress.add_task("capacity", total=SECONDS)
    await streams(endpoint, [body(number) for number in range(64)], AT_ONCE)
    replies, seconds = await streams(endpoint, [body(1000 + number) for number in range(400)], AT_ONCE)
    capacity = len(replies) / seconds
    normal = percentile([reply.seconds for reply in replies], 0.99)
    before = running.resident_bytes()
    progress.update(task, description=f"{FACTOR} × {capacity:.0f} requests a second")
    stormed = await storm(endpoint, FACTOR * capacity, lambda at: progress.update(task, completed=at))
    after = running.resident_bytes()
    good = [reply.seconds for reply in stormed if reply.status == 200]
    counts = Counter(reply.status if reply.status else str(reply.error) for reply in stormed)
    return {
        "capacity_per_second": round(capacity, 1),
        "sent": len(stormed),
        "by_status": {str(status): count for status, count in counts.items()},
        "broken_200": sum(reply.status == 200 and not reply.is_whole for reply in stormed),
        "normal_p99_seconds": round(normal, 3),
        "overload_p99_seconds": round(percentile(good, 0.99), 3),
        "p99_ratio": round(percentile(good, 0.99) / normal, 2),
        "rss_mib_before": before >> 20,
        "rss_growth": f"{after / before - 1:.1%}",
    }


def main() -> int:
    own.CACHE.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as progress, tempfile.TemporaryDirectory() as logs:
        with peers.running(own.honed(os.cpu_count() or 1), PORT, Path(logs) / "log") as running:
            found = asyncio.run(measure(running, progress))
    Console().print_json(data=found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
