"""Does company change an answer? 200 seeded requests on the real base, each alone and then all at once.

With the kernels and, for as many as its speed allows, on the reference path. `make bench-independence`
"""

import queue
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console

from agent.engine import Engine, Event, Finished, GenerationRequest, Sampling, Token, stream
from agent.serving import ModelLoader
from service.config import Settings
from service.loading import model_loader
from service.models import ensure
from tests.benchmarks import own
from tests.benchmarks.findings import Finding, exactly, tell
from tests.benchmarks.serving import story

REQUESTS = 200
REFERENCE_REQUESTS = 40
AT_ONCE = 32
TOKENS = 24


def requests(loader: ModelLoader, count: int) -> list[GenerationRequest]:
    """Prompts of all lengths, half of them beginning alike, and every kind of sampling."""
    draw = random.Random(5)
    made = []
    for number in range(count):
        messages = story(number % 20 if number % 2 else number, draw.choice((3, 20, 60, 200)))
        sampling = Sampling(
            temperature=draw.choice((0.0, 0.7, 1.3)),
            top_p=draw.choice((1.0, 0.9)),
            top_k=draw.choice((0, 40)),
            min_p=draw.choice((0.0, 0.05)),
            presence_penalty=draw.choice((0.0, 0.5)),
            seed=number,
            max_tokens=draw.randrange(1, TOKENS),
        )
        made.append(GenerationRequest(tuple(loader.tokenizer.chat_ids(messages)), sampling, f"caller {number % 7}"))
    return made


def differing(engine: Engine, asked: Sequence[GenerationRequest]) -> list[int]:
    """Numbers of the requests that got other tokens in company than alone."""
    alone = [ids(stream(engine, request)) for request in asked]
    together: list[list[int]] = []
    for first in range(0, len(asked), AT_ONCE):
        events: list[queue.SimpleQueue[Event]] = []
        for request in asked[first : first + AT_ONCE]:  # none is read on before all are under way
            events.append(queue.SimpleQueue())
            engine.submit(replace(request, caller=f"{request.caller}'"), events[-1].put)
        together += [ids(until_end(one)) for one in events]
    return [number for number, (a, b) in enumerate(zip(alone, together, strict=True)) if a != b]


def until_end(events: "queue.SimpleQueue[Event]") -> Iterator[Event]:
    while not isinstance(event := events.get(), Finished):
        yield event


def ids(events: Iterable[Event]) -> list[int]:
    return [event.id for event in events if isinstance(event, Token)]


def measure(count: int, **settings: Any) -> list[int]:
    chosen = Settings(state=own.state(), max_batch=AT_ONCE, max_waiting=AT_ONCE, **settings)
    loader = model_loader(chosen, ensure(chosen.model, chosen.paths.models))
    served = loader.build("base", None)
    try:
        return differing(served.engine, requests(loader, count))
    finally:
        served.engine.close(drain_seconds=0)


def run(console: Console) -> list[Finding]:
    console.print(f"batch independence: {REQUESTS} requests alone and together")
    kernels = measure(REQUESTS)
    reference = measure(REFERENCE_REQUESTS, dtype="float32")
    where = f"; differing: {reference}" if reference else ""
    return [
        exactly("independence", f"of {REQUESTS} seeded requests other than alone", len(kernels), 0),
        Finding("independence", f"the same of {REFERENCE_REQUESTS} on the reference path", f"{len(reference)}{where}"),
    ]


def main() -> int:
    console = Console()
    tell(console, run(console))
    return 0


if __name__ == "__main__":
    sys.exit(main())
