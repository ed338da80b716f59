"""What is worth asking a person: uncertainty and novelty to one score and the reason for it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

NOVELTY_WEIGHT = 0.3  # uncertainty finds wrong answers; novelty keeps the questions from being all alike


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How much an answer is worth asking about, in [0, 1], and why, for the person."""

    score: float
    novelty: float
    reason: str


def acquire(
    uncertainty: float | None,
    nearest_cosine: float | None,
    recent: Sequence[float],
    probability_wrong: float | None = None,
) -> Acquisition:
    """Score one answer.

    `uncertainty` is a signal of `agent.uncertainty`, ranked among `recent` ones (no scale to tune: the same figure
    means different things under different models); `nearest_cosine` is the similarity of its question to the nearest
    one seen, None when it is the first. An answer without tokens scores 0: there is nothing to ask about.
    `probability_wrong`, where people's judgements allow one, is told beside; it does not rank.
    """
    novelty = 1.0 if nearest_cosine is None else min(1.0, max(0.0, 1.0 - nearest_cosine))
    if uncertainty is None:
        return Acquisition(0.0, novelty, "no answer to ask about")
    rank = sum(other <= uncertainty for other in recent) / len(recent) if recent else 0.5
    score = (1.0 - NOVELTY_WEIGHT) * rank + NOVELTY_WEIGHT * novelty
    reason = f"less sure than {rank:.0%} of recent answers (uncertainty {uncertainty:.2f})"
    if probability_wrong is not None:
        reason = f"wrong with {probability_wrong:.0%}, as such answers were judged; {reason}"
    if novelty > 0.5:
        reason += ", and unlike anything asked before"
    return Acquisition(score, novelty, reason)
