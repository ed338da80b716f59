"""How fast we serve beside others, on this machine and in this hour: `make bench-peers`

Each server is started by itself with the same weights and asked the same by the same client: greedy, streaming,
128 tokens after a prompt of about 100, all prompts different. Two rounds; the better one counts, for everybody.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.benchmarks import machine, own, peers
from tests.benchmarks.findings import Finding, at_least, tell
from tests.benchmarks.load import Endpoint, Reply, ask, percentile, streams

LEVELS = (1, 8, 32)
AGAIN = "honed, at the end"  # a machine that changes its mind meanwhile shows
TOKENS = 128
ROUNDS = 2
PORT = 4711
WEIGHT_BYTES = 2 * 134_515_008
WORDS = (
    *("boats", "rivers", "castles", "trains", "bread", "mountains", "gardens", "clocks", "birds", "maps", "ships"),
    *("lamps", "letters", "bridges", "music", "stones", "winters", "horses", "markets", "islands", "towers", "forests"),
)


@dataclass(frozen=True, slots=True)
class Level:
    """Figures at one number of streams; times in seconds."""

    streams: int
    decode: float  # tokens a second, all streams together, while every one of them is answering
    whole: float  # tokens a second from the first request to the last answer, reading the prompts included
    first_p50: float
    first_p95: float
    next_p50: float
    next_p95: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One server's line."""

    name: str
    levels: tuple[Level, ...]
    prefill: float  # prompt tokens a second, one request of about 480
    resident_bytes: int


def story(number: int, words: int = 60) -> list[dict[str, str]]:
    """A question that nothing else shares more than its first words with, and that a long answer fits."""
    chosen = " ".join(WORDS[(number * 7 + place * 3 + place * place) % len(WORDS)] for place in range(words))
    return [{"role": "user", "content": f"{number}: write a very long and detailed story about {chosen}."}]


def body(number: int, *, tokens: int = TOKENS, words: int = 60) -> dict[str, Any]:
    return {
        "messages": story(number, words),
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def level(endpoint: Endpoint, count: int, first_number: int) -> Level:
    """One round of `count` streams at once. RuntimeError when one fails."""
    replies, seconds = await streams(endpoint, [body(first_number + number) for number in range(count)], count)
    _require_whole(replies)
    firsts = [reply.times[0] for reply in replies]
    gaps = [later - sooner for r in replies for sooner, later in zip(r.times, r.times[1:], strict=False)]
    whole = sum(reply.num_tokens or len(reply.times) for reply in replies) / seconds
    return Level(
        count,
        _steady(replies) or whole,
        whole,
        percentile(firsts, 0.5),
        percentile(firsts, 0.95),
        percentile(gaps, 0.5),
        percentile(gaps, 0.95),
    )


def _steady(replies: list[Reply]) -> float | None:
    """Tokens a second between the last stream's first token and the first stream's last; None when that is no time:
    a server that answers one after the other has no such moment.
    """
    began, ended = max(r.times[0] for r in replies), min(r.times[-1] for r in replies)
    if ended - began < 0.2:
        return None
    chunks = sum(began < at <= ended for reply in replies for at in reply.times)
    tokens_a_chunk = sum(r.num_tokens or len(r.times) for r in replies) / sum(len(r.times) for r in replies)
    return chunks * tokens_a_chunk / (ended - began)


def _require_whole(replies: list[Reply]) -> None:
    broken = [reply for reply in replies if not reply.is_whole or not reply.times]
    if broken:
        raise RuntimeError(f"{len(broken)} of {len(replies)} requests failed: {broken[0].status} {broken[0].error}")


async def measure(running: peers.Running) -> Figures:
    endpoint = Endpoint(running.url, running.peer.model)
    number = 1000
    await ask(endpoint, body(number, tokens=16))
    levels = []
    for count in LEVELS:
        rounds = []
        for _ in range(ROUNDS):
            number += count
            rounds.append(await level(endpoint, count, number))
        levels.append(max(rounds, key=lambda one: one.decode))
    prefills = []
    for _ in range(3):
        number += 1
        reply = await ask(endpoint, body(number, tokens=1, words=380))
        _require_whole([reply])
        prefills.append((reply.num_prompt or PREFILL_TOKENS) / reply.times[0])
    return Figures(running.peer.name, tuple(levels), max(prefills), running.resident_bytes())


PREFILL_TOKENS = 430  # what the question of 380 words comes to, where a server does not say


def show(console: Console, found: list[Figures], here: machine.Machine) -> None:
    """Two tables."""
    speed = Table(title=f"Tokens a second of SmolLM2-135M on {here}", title_justify="left")
    for name in ("server", "1", "8", "32", "whole 8", "whole 32", "prefill", "of read speed", "RSS MiB"):
        speed.add_column(name, justify="right")
    waits = Table(title="Milliseconds, median / 95 %", title_justify="left")
    for name in ("server", "first: 1", "8", "32", "next: 1", "8", "32"):
        waits.add_column(name, justify="right")
    for one in found:
        share = one.levels[0].decode * WEIGHT_BYTES / (here.read_gb_per_second * 1e9)
        speed.add_row(
            one.name,
            *(f"{at.decode:.0f}" for at in one.levels),
            *(f"{at.whole:.0f}" for at in one.levels[1:]),
            f"{one.prefill:.0f}",
            f"{share:.0%}",
            f"{one.resident_bytes >> 20}",
        )
        waits.add_row(
            one.name,
            *(f"{at.first_p50 * 1e3:.0f} / {at.first_p95 * 1e3:.0f}" for at in one.levels),
            *(f"{at.next_p50 * 1e3:.0f} / {at.next_p95 * 1e3:.0f}" for at in one.levels),
        )
    console.print(speed)
    console.print(waits)


def goals(found: list[Figures]) -> list[Finding]:
    """Each goal with its figure, met or not, of the slower of our two turns; what was not measured is missed."""
    by_name = {one.name: one for one in found}
    turns = [by_name[name] for name in ("honed", AGAIN) if name in by_name]
    if not turns:
        return [Finding("decode", "honed itself was not measured", "–", "", is_met=False)]
    wanted = (
        ("llama.cpp bf16", (0.9, 1.5, 1.5), 2.0),
        ("llama.cpp Q8_0", (0.0, 1.0, 1.0), None),
        ("vLLM CPU", (1.0, 2.0, 2.0), None),
        ("transformers serve", (2.5, 10.0, 1.0), None),
    )
    lines = []
    for name, factors, prefill in wanted:
        theirs = by_name.get(name)
        for place, (count, factor) in enumerate(zip(LEVELS, factors, strict=True)):
            ratio = (
                min(one.levels[place].decode for one in turns) / theirs.levels[place].decode if theirs else float("nan")
            )
            if factor:
                lines.append(at_least("decode", f"{count} streams, × {name}", ratio, factor))
        if prefill:
            ratio = min(one.prefill for one in turns) / theirs.prefill if theirs else float("nan")
            lines.append(at_least("prefill", f"× {name}", ratio, prefill))
    return lines


def all_peers(threads: int, cache: Path) -> list[peers.Peer]:
    model, most = own.base_directory(), max(LEVELS)
    return [
        own.honed(threads),
        *peers.llama_cpp(cache, own.gguf(), threads, most),
        peers.vllm(cache, model, threads, most),
        peers.transformers(cache, model, threads),
    ]


def run(console: Console, only: list[str] | None = None, report: Path | None = None) -> list[Figures]:
    """Every server's figures, the base's plain `generate()` last."""
    threads = os.cpu_count() or 1
    own.CACHE.mkdir(parents=True, exist_ok=True)
    found: list[Figures] = []
    with Progress(console=console) as progress, tempfile.TemporaryDirectory() as logs:
        task = progress.add_task("looking at the machine", total=None)
        here = machine.look(threads)
        progress.update(task, description="building the servers (once, about ten minutes)")
        measures = dict(_measures(threads, Path(logs) / "log", only))
        progress.update(task, total=len(measures))
        for name, figures in measures.items():
            progress.update(task, description=name)
            try:
                found.append(figures())
            except RuntimeError as error:  # one that fails is told, and the others are still measured
                console.print(f"{name}: {error}")
            progress.advance(task)
            _keep(report, here, found)
    show(console, found, here)
    return found


def _measures(threads: int, log: Path, only: list[str] | None) -> Iterator[tuple[str, Callable[[], Figures]]]:
    """Each server by name, and what measures it."""
    from tests.benchmarks import plain

    def of(peer: peers.Peer) -> Figures:
        with peers.running(peer, PORT, log) as running:
            return asyncio.run(measure(running))

    servers = all_peers(threads, own.CACHE)
    for peer in servers:
        if _is_wanted(peer.name, only):
            yield peer.name, partial(of, peer)
    if _is_wanted("generate()", only):
        yield "generate()", partial(plain.figures, own.base_directory(), threads)
    yield AGAIN, partial(of, replace(servers[0], name=AGAIN))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="measure only servers whose names begin so; honed always")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    chosen = parser.parse_args()
    console = Console()
    tell(console, goals(run(console, chosen.only, chosen.json)))
    return 0


def _keep(path: Path | None, here: machine.Machine, found: list[Figures]) -> None:
    """As far as it came: a run that is broken off has not been for nothing."""
    if path is not None:
        report = {"machine": asdict(here), "servers": [asdict(one) for one in found]}
        path.write_text(json.dumps(report, indent=1))


def _is_wanted(name: str, only: list[str] | None) -> bool:
    return name == "honed" or not only or any(name.lower().startswith(part.lower()) for part in only)


if __name__ == "__main__":
    sys.exit(main())
