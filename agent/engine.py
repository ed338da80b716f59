"""What serving asks of anything that generates: requests in, tokens with their figures out.

An engine answers from exactly one checkpoint, all its life. It knows nothing of conversations, people or HTTP, and
nothing here assumes that it runs in this process or on this machine.
"""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from store.records import FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. Temperature 0 is greedy; `seed` None draws a fresh one.

    Order: penalties and `logit_bias` on the logits, temperature, top-k (0: all), top-p, min-p (a share of the
    likeliest token's probability). Penalties count the tokens of the answer, as OpenAI's do.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Prompt token ids and how to continue them. Work on a prompt is shared only between requests of one `caller`.

    `grammar` (see `agent.grammar`) is the form the answer must have; empty: any.
    `prompt_logprobs`: also say how likely the prompt itself was, with so many alternatives; then `max_tokens` may be 0.
    """

    prompt_ids: tuple[int, ...]
    sampling: Sampling = Sampling()
    caller: str = ""
    prompt_logprobs: int | None = None
    grammar: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood here, and its log-probability."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `text` is what may be shown now: it can lag behind (UTF-8, stop strings).

    `logprob`, `entropy` and `margin` (nats) are of the model's own distribution, before any setting of the request
    touches it. `margin` is by how much the likeliest token is ahead of the second.
    """

    id: int
    text: str
    piece: str
    logprob: float
    entropy: float
    margin: float
    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptRead:
    """How likely the prompt was, where that was asked: all its tokens but the first. Comes before any token."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer: why, held-back text, the fault if the reason is ERROR, and how many tokens of the prompt
    were in the cache already.
    """

    reason: FinishReason
    text: str = ""
    error: str | None = None
    num_cached: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine is doing, and has done since it began. Tokens count once, however often they were read."""

    num_running: int = 0
    num_waiting: int = 0
    cache_usage: float = 0.0  # share of the key-value cache held by requests
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_queries: int = 0  # prompt tokens looked up
    prefix_hits: int = 0  # of these, found
    num_preemptions: int = 0
    busy_seconds: float = 0.0  # time spent in steps

    @property
    def tokens_per_second(self) -> float | None:
        """Of all answers together, while it computed; None before it did."""
        return self.generated_tokens / self.busy_seconds if self.busy_seconds else None

    def __add__(self, other: "EngineStats") -> "EngineStats":
        """Field by field; a share of two caches is the fuller one's."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return EngineStats(**sums | {"cache_usage": max(self.cache_usage, other.cache_usage)})


Event = PromptRead | Token | Finished
Listener = Callable[[Event], None]


class EngineClosed(RuntimeError):
    """The engine takes no more requests: it drains, was closed, or its worker died."""


class EngineBusy(RuntimeError):
    """The queue is full; try again in a moment."""


class Ticket(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Stop soon; the listener still gets a `Finished` with reason DISCONNECT."""


class Engine(Protocol):
    """Generates from one checkpoint."""

    def submit(self, request: GenerationRequest, listener: Listener) -> Ticket:
        """Queue a request. The listener runs on the engine's thread and must not block.
        Raises EngineClosed, EngineBusy; ValueError for a prompt or setting that this model cannot have.
        """

    def has_room(self) -> bool:
        """Whether a request that comes now would be queued: for refusing others before work is put into them."""

    def num_active(self) -> int:
        """Requests queued or running."""

    def stats(self) -> EngineStats:
        """Gauges and counters, for metrics."""

    def use_threads(self, count: int) -> None:
        """Make room on this machine for others, or take it again. An engine elsewhere has nothing to do."""

    def last_step_at(self) -> float | None:
        """Monotonic time of the newest step, whatever it read or made; None before the first."""

    def fault(self) -> str | None:
        """Why the worker died, if it did."""

    def close(self, drain_seconds: float) -> int:
        """Take no more, finish what runs for so long, then cut; returns how many were cut."""


def stream(engine: Engine, request: GenerationRequest) -> Iterator[Event]:
    """Blocking form of `submit`: events until and with `Finished`. Leaving early cancels."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    ticket = engine.submit(request, events.put)
    try:
        while True:
            event = events.get()
            yield event
            if isinstance(event, Finished):
                return
    finally:
        ticket.cancel()


def complete(engine: Engine, request: GenerationRequest) -> tuple[str, list[Token], Finished]:
    """The whole answer at once: text, tokens, end."""
    events = list(stream(engine, request))
    tokens = [event for event in events if isinstance(event, Token)]
    end = events[-1]
    if not isinstance(end, Finished):
        raise EngineClosed("the engine ended a request without saying so; restart the daemon and report this")
    return "".join(token.text for token in tokens) + end.text, tokens, end
