"""How unsure an engine is of its answer to a prompt: by what serving has for nothing, or by drawing several more."""

from collections.abc import Callable, Sequence
from typing import Protocol

from agent.consistency import Sampled, sampled_signal
from agent.embedding import Embedder
from agent.engine import Engine, EngineClosed, Finished, GenerationRequest, Sampling, Token, complete
from agent.uncertainty import signal
from store.records import FinishReason, TokenTrace

DRAWN = 5  # further answers (Kuhn et al. 2023 find little more beyond)
TEMPERATURE = 0.5


class Doubts(Protocol):
    """`is_as_logged`: whether its figures can stand beside those in the log; else only beside each other."""

    is_as_logged: bool

    def of(self, engine: Engine, prompt: Sequence[int], max_tokens: int) -> float | None:
        """Higher is less sure; None where no token was made. EngineBusy, EngineClosed; ValueError for a prompt that is
        too long.
        """


class TracedDoubts:
    """By a signal over the tokens of the likeliest answer."""

    is_as_logged = True

    def __init__(self, name: str) -> None:
        self._signal = signal(name)

    def of(self, engine: Engine, prompt: Sequence[int], max_tokens: int) -> float | None:
        tokens, _ = _answer(engine, prompt, Sampling(max_tokens=max_tokens))
        return self._signal([TokenTrace(token.id, token.logprob, token.entropy) for token in tokens])


class SampledDoubts:
    """By how much drawn answers agree with it and with each other. The embedder is loaded when it is first needed."""

    is_as_logged = False

    def __init__(self, name: str, embedder: Callable[[], Embedder]) -> None:
        self._signal = sampled_signal(name)
        self._embedder = embedder

    def of(self, engine: Engine, prompt: Sequence[int], max_tokens: int) -> float | None:
        tokens, answer = _answer(engine, prompt, Sampling(max_tokens=max_tokens))
        if not tokens:
            return None
        drawn = [
            _answer(engine, prompt, Sampling(max_tokens=max_tokens, temperature=TEMPERATURE, seed=seed))[1]
            for seed in range(DRAWN)
        ]
        return self._signal(Sampled(answer, drawn, self._embedder().embed(drawn)))


def doubts(name: str, sampled_name: str, embedder: Callable[[], Embedder]) -> Doubts:
    """By the signal over samples where one is named; ValueError for a name that there is not."""
    return SampledDoubts(sampled_name, embedder) if sampled_name else TracedDoubts(name)


def _answer(engine: Engine, prompt: Sequence[int], sampling: Sampling) -> tuple[list[Token], str]:
    text, tokens, end = complete(engine, GenerationRequest(tuple(prompt), sampling))
    _require_whole(end)
    return tokens, text


def _require_whole(end: Finished) -> None:
    if end.reason is FinishReason.ERROR:
        raise EngineClosed(end.error or "the engine failed without a word; restart the daemon and report this")
