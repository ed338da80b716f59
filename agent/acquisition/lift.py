"""What choosing questions gains: how many wrong answers each arm's found, beside those drawn at random."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.results import wilson_interval
from store.records import Arm, LabelState


@dataclass(slots=True)
class Outcome:
    """Of the questions of one arm: how many were asked, and of those a person judged how many answers were wrong."""

    num_asked: int = 0
    num_judged: int = 0
    num_wrong: int = 0

    @property
    def share_wrong(self) -> float | None:
        return self.num_wrong / self.num_judged if self.num_judged else None


def outcomes(counts: Mapping[Arm | None, Mapping[LabelState, int]]) -> dict[Arm, Outcome]:
    """Every arm's: a question that finds a wrong answer was worth asking, so their shares tell what picking gains."""
    found = {}
    for arm in Arm:
        states = Counter(counts.get(arm, {}))
        wrong = states[LabelState.ANSWERED] + states[LabelState.WRONG]
        found[arm] = Outcome(states.total(), wrong + states[LabelState.RIGHT], wrong)
    return found


@dataclass(frozen=True, slots=True)
class Lift:
    """By how much more often what was picked was wrong than what was drawn, and the 95 % interval of that."""

    gain: float
    low: float
    high: float


def lift(found: Mapping[Arm, Outcome]) -> Lift | None:
    """None until some of both were judged. The interval of a difference of shares is Newcombe's (1998, method 10)."""
    picked, drawn = found[Arm.DENSE_UNCERTAIN], found[Arm.RANDOM]
    if picked.share_wrong is None or drawn.share_wrong is None:
        return None
    p, q = picked.share_wrong, drawn.share_wrong
    p_low, p_high = wilson_interval(picked.num_wrong, picked.num_judged)
    q_low, q_high = wilson_interval(drawn.num_wrong, drawn.num_judged)
    return Lift(p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low))
