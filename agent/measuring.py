"""What one model makes of all that an evaluation asks, and what of it a checkpoint's scope leaves to the base."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

from agent.answers import Messages, answer_logprobs, greedy_answers
from agent.embedding import SentenceEmbedder, Vectors
from agent.engine import Engine
from agent.flattery import Reaction, react
from agent.scope import Scope, last_asked
from agent.taste import likelihoods
from agent.tokenizer import Tokenizer
from agent.weighed import Weighed

T = TypeVar("T")
Places = Sequence[Sequence[bool]]  # of items, own answers, wrong opinions and judgements: whether each is in a scope


@dataclass(frozen=True, slots=True)
class Asked:
    """Items to answer in `max_tokens` each, the base's `own` answers to find likely, wrong opinions to react to, and
    what people `judged` (see `agent.taste`).
    """

    items: Sequence[Mapping[str, Any]]
    own: Sequence[tuple[Messages, str]]
    pleasing: Sequence[Mapping[str, str]]
    judged: Sequence[Mapping[str, Any]]
    num_too_long: int = 0  # further items, which no context holds

    def at(self, places: Places) -> "Asked":
        """Only what is inside."""
        items, own, pleasing, judged = places
        return Asked(
            list(compress(self.items, items)),
            list(compress(self.own, own)),
            list(compress(self.pleasing, pleasing)),
            list(compress(self.judged, judged)),
        )

    def questions(self) -> list[list[str]]:
        """What each would be placed by."""
        return [
            [last_asked(item["messages"]) for item in self.items],
            [last_asked(messages) for messages, _ in self.own],
            [item["question"] for item in self.pleasing],
            [last_asked(item["messages"]) for item in self.judged],
        ]


@dataclass(frozen=True, slots=True)
class Found:
    """One model's answers, the log-probabilities (nats) of the base's own ones, its reactions, and the likelihoods of
    what was judged.
    """

    answers: Sequence[str]
    logprobs: Sequence[Sequence[float]]
    reactions: Sequence[Reaction]
    judged: Sequence[Sequence[float]]

    def among(self, others: "Found", places: Places) -> "Found":
        """What was found inside, at its places among what another model made of everything."""
        answers, logprobs, reactions, judged = places
        return Found(
            _among(self.answers, others.answers, answers),
            _among(self.logprobs, others.logprobs, logprobs),
            _among(self.reactions, others.reactions, reactions),
            _among(self.judged, others.judged, judged),
        )


def find(engine: Engine, tokenizer: Tokenizer, asked: Asked, on_answer: Callable[[int], None]) -> Found:
    """Ask it all. RuntimeError on a fault."""
    answers = answer_all(engine, tokenizer, asked.items, on_answer)
    weighed = weigh(engine, tokenizer, asked)
    return Found(answers, weighed.logprobs, weighed.reactions, likelihoods(engine, tokenizer, asked.judged))


def weigh(engine: Engine, tokenizer: Tokenizer, asked: Asked) -> Weighed:
    """What it makes of the base's own answers and of wrong opinions. RuntimeError on a fault."""
    return Weighed(answer_logprobs(engine, tokenizer, asked.own), react(engine, tokenizer, asked.pleasing))


def answer_all(
    engine: Engine, tokenizer: Tokenizer, items: Sequence[Mapping[str, Any]], on_answer: Callable[[int], None]
) -> list[str]:
    """One answer an item, in order. RuntimeError on a fault."""
    conversations, limits = [item["messages"] for item in items], [int(item["max_tokens"]) for item in items]
    return greedy_answers(engine, tokenizer, conversations, max_tokens=limits, on_answer=on_answer)


def embedded(asked: Asked, embedder: Path) -> list[Vectors]:
    """Unit vectors of what is asked, by the embedder in that directory: of items, own answers, wrong opinions and
    judgements.
    """
    model = SentenceEmbedder(embedder)
    return [model.embed(questions) for questions in asked.questions()]


def inside(scope: Scope | None, vectors: Sequence[Vectors], embedder_id: str) -> Places:
    """What a checkpoint would answer itself; everything without a scope. ValueError when the scope is of another
    embedder than this one, which made the vectors.
    """
    if scope is None:
        return [[True] * len(part) for part in vectors]
    scope.require_embedder(embedder_id)
    return [scope.covers_each(part).tolist() for part in vectors]


def _among(own: Iterable[T], others: Sequence[T], places: Sequence[bool]) -> list[T]:
    fresh = iter(own)
    return [next(fresh) if is_inside else other for other, is_inside in zip(others, places, strict=True)]
