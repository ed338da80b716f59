"""Choosing questions among a million interactions, and finding their neighbours: `make bench-scale`

Everything is read from a log on disk as the daemon reads it. What is measured runs in processes of its own, whose peak
memory is the kernel's high-water mark of resident pages (VmHWM), libraries included; their CPU seconds say what another
program beside them cannot change. Making the embeddings is not measured: an interaction gets its own as it comes in.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agent.acquisition.choosing import SHORTLIST
from policies.engine import shipped
from service.certainty import Certainty
from service.questions import Budget, Questions
from service.reasking import Doubt
from store import migrations
from store.comparisons import Comparisons
from store.connection import Connection
from store.database import Database
from store.interactions import Interactions, Vectors
from store.labels import Labels
from store.pool import Pool
from store.records import Interaction
from store.vectors import VectorIndex
from tests.benchmarks.findings import Finding, at_most, tell
from tests.benchmarks.machine import look

ROWS = 1_000_000
DIM = 384
TOPICS, CLUSTERS = 100, 2000
REPEATED = 0.2  # of the interactions, that ask what another one asked
PEOPLE = 500
QUERIES, EXACT_QUERIES = 1000, 200
BATCH = 20
PER_CHUNK = 500  # SQLite walks its journal in memory at every statement of a transaction that triggers may abort
NOW = 1_700_000_000.0


class Crowd:
    """Vectors in clusters, clusters in topics, of very different sizes; the same from the same seed."""

    def __init__(self) -> None:
        draw = np.random.default_rng(0)
        topics = draw.normal(size=(TOPICS, DIM)) / np.sqrt(DIM)
        own = draw.normal(size=(CLUSTERS, DIM)) / np.sqrt(DIM)
        self.centres = topics[draw.integers(0, TOPICS, CLUSTERS)] + own
        sizes = 1.0 / (10.0 + np.arange(CLUSTERS))
        self.shares = sizes / sizes.sum()
        self.doubt = draw.normal(size=CLUSTERS)

    def take(self, seed: int, count: int) -> tuple[Vectors, np.ndarray]:
        """Unit vectors (count, DIM) and entropies in nats (count)."""
        draw = np.random.default_rng([1, seed])
        cluster = draw.choice(CLUSTERS, size=count, p=self.shares)
        vectors = self.centres[cluster] + draw.normal(size=(count, DIM)) / np.sqrt(DIM)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit.astype(np.float32), np.exp(0.5 * self.doubt[cluster] + 0.5 * draw.normal(size=count) - 1.0)


def fill(database: Database, crowd: Crowd, rows: int) -> None:
    """A log of so many scored interactions, and a hundred questions that were settled long ago."""
    for start in range(0, rows, PER_CHUNK):
        database.write(partial(_insert, crowd, start, min(PER_CHUNK, rows - start)))
    arms = ["warm-up"] * 15 + ["random"] * 13 + ["dense-uncertain"] * 72
    tasks = [(f"{n:032x}", f"{n * (rows // 100):032x}", arm) for n, arm in enumerate(arms)]
    sql = """INSERT INTO labels (id, interaction_id, created_at, score, reason, state, resolved_at, arm)
             VALUES (?, ?, 1.0, 0.5, 'long ago', 'right', 2.0, ?)"""
    database.write(lambda conn: conn.conn.executemany(sql, tasks))


def _insert(crowd: Crowd, start: int, count: int, conn: Connection) -> None:
    vectors, uncertainty = crowd.take(start, count)
    draw = np.random.default_rng([2, start])
    question = np.arange(start, start + count)
    again = np.flatnonzero(draw.random(count) < REPEATED)
    first = draw.integers(0, np.maximum(again, 1))  # an earlier one of this chunk
    vectors[again], question[again] = vectors[first], question[first]
    people = draw.zipf(1.3, count) % PEOPLE
    messages = json.dumps([{"role": "user", "content": "What would a question of usual length be about? " * 2}])
    numbers = range(start, start + count)
    conn.conn.executemany(
        "INSERT INTO interactions VALUES (?, ?, 'c', 1.0, ?, 'base', ?, 'An answer.', 'stop', x'', 9, 0.1, ?, '{}')",
        [
            (n + 1, f"{n:032x}", f"person {p}", messages, u)
            for n, p, u in zip(numbers, people, uncertainty, strict=True)
        ],
    )
    conn.conn.executemany(
        "INSERT INTO embeddings VALUES (?, 1.0, ?, 0.5, 0.5)",
        [(f"{n:032x}", vector.tobytes()) for n, vector in zip(numbers, vectors, strict=True)],
    )
    conn.conn.executemany(
        "INSERT INTO pool VALUES (?, 'base', ?, ?, ?, 1)",
        [(n + 1, f"person {p}", u, int(q)) for n, p, u, q in zip(numbers, people, uncertainty, question, strict=True)],
    )


def build(state: Path) -> dict[str, Any]:
    """The index from the rows, saved; its neighbours beside the true ones."""
    database = Database(state / "honed.db", migrations.log)
    interactions = Interactions(database)
    index = VectorIndex(state / "vectors.faiss", DIM)
    began, worked = time.perf_counter(), time.process_time()
    index.load_or_rebuild(lambda: interactions.vectors(DIM))
    seconds, cpu, memory = time.perf_counter() - began, time.process_time() - worked, peak_gb()
    index.save()
    queries, _ = Crowd().take(10**9, QUERIES)
    times, found = [], []
    for query in queries:
        began = time.perf_counter()
        near = index.search(query, 10)
        times.append(time.perf_counter() - began)
        found.append([id_ for id_, _ in near])
    tenth = tenth_cosines(interactions.vectors(DIM), queries[:EXACT_QUERIES])
    right = 0
    for query, ids, least in zip(queries, found, tenth, strict=False):
        cosines = Pool(database).vectors([int(id_, 16) + 1 for id_ in ids], DIM) @ query
        right += int((cosines >= least - 1e-6).sum())  # of what is equally near, any will do
    database.close()
    return {
        "rows": len(index),
        "seconds": seconds,
        "cpu": cpu,
        "memory": memory,
        "p50": float(np.percentile(times, 50)) * 1e3,
        "p99": float(np.percentile(times, 99)) * 1e3,
        "recall": right / (10 * EXACT_QUERIES),
    }


def tenth_cosines(chunks: Iterator[tuple[list[str], Vectors]], queries: Vectors) -> Vectors:
    """Of each query, how near the tenth nearest row truly is."""
    best = np.full((len(queries), 10), -2.0, dtype=np.float32)
    for _, vectors in chunks:
        best = -np.partition(-np.hstack([best, queries @ vectors.T]), 9, axis=1)[:, :10]
    return np.asarray(best.min(axis=1), dtype=np.float32)


class AnsweredByBase:
    """No other checkpoint has come to serve since: there is nobody to ask."""

    is_as_logged = True

    @property
    def known(self) -> Mapping[int, Doubt]:
        return {}

    def ask(self, rows: Iterable[tuple[int, Interaction | None, Vectors]]) -> int:
        return len(list(rows))


def choose(state: Path) -> dict[str, Any]:
    """As after a restart: the saved index compared with the rows, then a batch of questions."""
    database = Database(state / "honed.db", migrations.log)
    interactions, labels = Interactions(database), Labels(database)
    index = VectorIndex(state / "vectors.faiss", DIM)
    began = time.perf_counter()
    is_rebuilt = index.load_or_rebuild(lambda: interactions.vectors(DIM))
    start_seconds = time.perf_counter() - began
    questions = Questions(
        interactions=interactions,
        comparisons=Comparisons(database),
        labels=labels,
        pool=Pool(database),
        index=index,
        certainty=Certainty(interactions),
        reasking=AnsweredByBase(),
        policy_set=shipped(),
        budget=Budget(4 * BATCH, BATCH, 0.0),
        draw=np.random.default_rng(7),
        clock=lambda: NOW,
    )
    began, worked = time.perf_counter(), time.process_time()
    num_asked = questions.ask()
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    arms = Counter(str(task.arm) for task in labels.open_tasks(BATCH))
    database.close()
    told = {
        "start_seconds": start_seconds,
        "is_rebuilt": is_rebuilt,
        "seconds": seconds,
        "cpu": cpu,
        "memory": peak_gb(),
    }
    return told | {"asked": num_asked, "arms": dict(arms)}


def peak_gb() -> float:
    """Of this process's own life: `getrusage` would also count its parent's pages from before the exec."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9


def measure(step: str, state: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.scale", step, str(state)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(console: Console, rows: int = ROWS) -> list[Finding]:
    with tempfile.TemporaryDirectory(prefix="honed-scale-") as name:
        state = Path(name)
        console.print(f"a log of {rows:,} interactions in {state}: about three minutes")
        database = Database(state / "honed.db", migrations.log)
        fill(database, Crowd(), rows)
        database.close()
        console.print("the index from its rows")
        built = measure("build", state)
        size = (state / "vectors.faiss").stat().st_size / 1e9
        console.print("questions")
        chosen = measure("choose", state)
    if chosen["is_rebuilt"] or built["rows"] != rows:
        raise RuntimeError(f"the index has {built['rows']} of {rows} rows, or its saved copy was not taken")
    arms = ", ".join(f"{count} {arm}" for arm, count in sorted(chosen["arms"].items()))
    return [
        at_most("scale", f"score {rows:,}, choose {chosen['asked']} ({arms})", chosen["seconds"], 60, " s"),
        Finding("scale", "CPU of it", f"{chosen['cpu']:.1f} s"),
        at_most("scale", "peak memory of it, index included", chosen["memory"], 2, " GB"),
        Finding("scale", "shortlist for density", f"{SHORTLIST:,}"),
        at_most("scale", "10 neighbours of one query, p99", built["p99"], 10, " ms"),
        Finding("scale", "the same, median", f"{built['p50']:.2f} ms"),
        Finding("scale", "recall@10 against exact search", f"{built['recall']:.3f}"),
        at_most("scale", "index rebuilt from rows", built["seconds"], 300, " s"),
        Finding("scale", "CPU of it", f"{built['cpu']:.1f} s"),
        Finding("scale", "peak memory of it", f"{built['memory']:.2f} GB"),
        Finding("scale", "index on disk", f"{size:.2f} GB"),
        Finding("scale", "start: saved index held against the rows", f"{chosen['start_seconds']:.1f} s"),
    ]


def main() -> int:
    if len(sys.argv) == 3:
        step = {"build": build, "choose": choose}[sys.argv[1]]
        print(json.dumps(step(Path(sys.argv[2]))))
        return 0
    console = Console()
    console.print(str(look(2)))
    tell(console, run(console, int(sys.argv[1]) if len(sys.argv) == 2 else ROWS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
