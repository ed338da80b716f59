"""How much an answer's fellows agree with it: signals that need the question answered several times more.

Pure: the samples and their sentence vectors are the caller's. Higher means less sure. At the size of the default model
they tell wrong answers from right ones no better than what serving has for nothing (`make bench-detection`); they are
meant for larger ones.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.embedding import Vectors
from agent.scoring import is_exact

SAME_MEANING = 0.85  # cosine of MiniLM vectors from which two answers count as saying the same


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """The greedy answer, K further ones drawn at a temperature, and unit vectors (K, dim) of these."""

    answer: str
    samples: Sequence[str]
    vectors: Vectors

    def __post_init__(self) -> None:
        if not self.samples or len(self.samples) != len(self.vectors):
            raise ValueError(f"{len(self.samples)} samples and {len(self.vectors)} vectors; draw one sample at least")


def self_consistency(sampled: Sampled) -> float:
    """The share of samples that are not the greedy answer, case and spaces aside; in [0, 1]."""
    return sum(not is_exact(other, sampled.answer) for other in sampled.samples) / len(sampled.samples)


def semantic_entropy(sampled: Sampled) -> float:
    """Entropy over meanings, in nats, of 0 to log K (Kuhn et al. 2023; each sample counts the same, as in the discrete
    form of Farquhar et al. 2024). A meaning is a cluster: as there, a sample joins the first one whose first member it
    is close to, but close by cosine instead of by entailment both ways.
    """
    sizes = Counter(_clusters(sampled.vectors)).values()
    total = sum(sizes)
    return sum(size / total * math.log(total / size) for size in sizes)


def _clusters(vectors: Vectors) -> list[int]:
    """The cluster of each, named by its first member's place."""
    firsts: list[int] = []
    found = []
    for place, vector in enumerate(vectors):
        near = next((first for first in firsts if float(np.dot(vectors[first], vector)) >= SAME_MEANING), None)
        if near is None:
            firsts.append(place)
        found.append(place if near is None else near)
    return found


SampledSignal = Callable[[Sampled], float]
SAMPLED_SIGNALS: Mapping[str, SampledSignal] = {one.__name__: one for one in (self_consistency, semantic_entropy)}


def sampled_signal(name: str) -> SampledSignal:
    """The signal of that name; ValueError names those there are."""
    try:
        return SAMPLED_SIGNALS[name]
    except KeyError:
        raise ValueError(f"no signal over samples {name!r}; there are {', '.join(SAMPLED_SIGNALS)}") from None
