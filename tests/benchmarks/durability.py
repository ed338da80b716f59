"""What it costs to have every answer on disk before it ends: rows a second, and how long one waits. `make bench-log`

The real store on a real disk. Many writers at once show what group commit carries; a steady stream, at a rate that no
model on this class of machine reaches, shows what one answer waits.
"""

import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from store.database import Database
from store.interactions import Interactions
from store.migrations import log
from store.records import FinishReason, Interaction, TokenTrace
from tests.benchmarks.findings import Finding, at_least, at_most, tell
from tests.benchmarks.load import percentile

ROWS = 20_000
AT_ONCE = 256  # writers with a row under way
STEADY_PER_SECOND = 100.0
STEADY_ROWS = 1_000


def answer(number: int) -> Interaction:
    """A row as a turn of 128 tokens leaves it."""
    question = {
        "role": "user",
        "content": f"{number}: what do you know of the rivers, castles and clocks of this town?",
    }
    return Interaction(
        id=f"{number:032x}",
        conversation_id=f"{number:032x}",
        created_at=time.time(),
        principal="local",
        checkpoint_id="c" * 64,
        messages=(question,),
        reply="The river runs past the castle, and its clock is heard in every street. " * 8,
        finish_reason=FinishReason.LENGTH,
        tokens=tuple(TokenTrace(place, -0.5, 1.5) for place in range(128)),
        prompt_tokens=40,
        latency_seconds=1.5,
        uncertainty=1.5,
        sampling={"temperature": 0.2},
    )


@contextmanager
def fresh() -> Iterator[Interactions]:
    with tempfile.TemporaryDirectory(dir=Path.home()) as directory:  # /tmp may be memory, where fsync is nothing
        database = Database(Path(directory) / "honed.db", log)
        try:
            yield Interactions(database)
        finally:
            database.close()


def rows_a_second(interactions: Interactions) -> float:
    """With so many writers, each of which waits for its row before it brings the next."""
    rows = [answer(number) for number in range(ROWS)]
    under_way: deque[Future[None]] = deque()
    began = time.perf_counter()
    for row in rows:
        if len(under_way) == AT_ONCE:
            under_way.popleft().result()
        under_way.append(interactions.submit(row))
    for future in under_way:
        future.result()
    return ROWS / (time.perf_counter() - began)


def _waited(found: list[float], since: float, _: object) -> None:
    found.append(time.perf_counter() - since)


def waits(interactions: Interactions) -> list[float]:
    """Seconds from handing a row over to its being durable, at a steady rate."""
    found: list[float] = []
    pending = []
    began = time.perf_counter()
    for number in range(STEADY_ROWS):
        wait = began + number / STEADY_PER_SECOND - time.perf_counter()
        time.sleep(max(wait, 0))
        at = time.perf_counter()
        future = interactions.submit(answer(1_000_000 + number))
        future.add_done_callback(partial(_waited, found, at))
        pending.append(future)
    for future in pending:
        future.result()
    return found


def run(console: Console) -> list[Finding]:
    with fresh() as interactions:
        console.print("logging: how many rows, and how long one waits")
        rate, seconds = rows_a_second(interactions), waits(interactions)
    return [
        at_least("logging", f"durable rows a second, {AT_ONCE} under way", rate, 2000),
        at_most(
            "logging", f"p99 of one row at {STEADY_PER_SECOND:g} a second", percentile(seconds, 0.99) * 1e3, 30, " ms"
        ),
    ]


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
