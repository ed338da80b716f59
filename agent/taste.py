"""Does a model lean the way people judged? By how much likelier, or less likely, than the base it finds what they did.

That log-ratio is the reward that preferences are learnt by (Rafailov et al. 2023, "Direct Preference Optimization"):
the base itself leans nowhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.answers import Messages, answer_logprobs
from agent.curation.lesson import Judgement
from agent.engine import Engine
from agent.preferences import preference_row
from agent.results import MODELS
from agent.tokenizer import Tokenizer

MAX_ITEMS = 100  # the newest; each is read once by every model
Row = Mapping[str, Any]


def judged_items(judged: Iterable[Judgement]) -> list[dict[str, Any]]:
    """What is to be measured of these (oldest first), as rows of `agent.preferences`. Corrections are asked instead."""
    rows = [preference_row(one) for one in judged if not one.feedback.correction]
    return rows[-MAX_ITEMS:]


def texts(item: Row) -> list[tuple[Messages, str]]:
    """The conversation with each answer that was judged in it: the better one and the other, or the one alone."""
    names = ("chosen", "rejected") if item["kind"] == "preference" else ("answer",)
    return [(item["messages"], item[name]) for name in names]


def likelihoods(engine: Engine, tokenizer: Tokenizer, items: Sequence[Row]) -> list[tuple[float, ...]]:
    """The log-probability (nats) of each answer of each item. RuntimeError on a fault."""
    totals = map(sum, answer_logprobs(engine, tokenizer, [pair for item in items for pair in texts(item)]))
    return [tuple(next(totals) for _ in texts(item)) for item in items]


def leans(item: Row, found: Sequence[float], base: Sequence[float]) -> bool:
    """Whether the model leans the way that was judged."""
    gains = [now - before for now, before in zip(found, base, strict=True)]
    if item["kind"] == "preference":
        return gains[0] > gains[1]
    return gains[0] > 0 if item["is_good"] else gains[0] < 0


def figures(items: Sequence[Row], found: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, dict[str, int]]:
    """Of each model, how many items it leans the right way on, by its `likelihoods`."""
    told = {}
    for name in MODELS:
        rows = zip(items, found[name], found["base"], strict=True)
        told[name] = {"num_items": len(items), "num_right": sum(leans(*row) for row in rows)}
    return told
