"""Clusters of questions by their vectors: spherical k-means, and names by the words that set each apart. Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ITERATIONS = 10
NAME_WORDS = 3
STOP_WORDS = frozenset(  # a list of a line a word would be longer than all the rest
    """a about an and are as at be by can could do does for from give had has have how i in is it its me my of on or
    please should so tell than that the their them then there these they this to was we were what when where which who
    whom whose why will with would you your""".split()  # noqa: SIM905
)

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is alike. `drift` is its share of the recent questions less its share of the earlier ones, `error` the share
    of wrong answers among the `num_judged` that people judged.
    """

    name: str
    size: int
    uncertainty: float | None  # mean, in nats; None where no answer has one
    novelty: float
    drift: float
    num_judged: int
    error: float | None  # None where nobody judged any


def centres(vectors: Vectors, count: int, draw: np.random.Generator) -> Vectors:
    """At most `count` unit centres (K, D) of unit vectors (N, D): k-means on the sphere (Dhillon and Modha 2001), begun
    from rows far from each other (k-means++, Arthur and Vassilvitskii 2007). A cluster that runs empty is dropped.
    """
    found = _seeds(vectors, min(count, len(vectors)), draw)
    for _ in range(ITERATIONS):
        nearest = assign(vectors, found)
        sums = np.zeros_like(found)
        np.add.at(sums, nearest, vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        found = (sums / np.where(lengths > 0, lengths, 1.0))[lengths[:, 0] > 0]
    return np.asarray(found, dtype=np.float32)


def assign(vectors: Vectors, found: Vectors) -> Ints:
    """The place of each vector's nearest centre."""
    if not len(found):
        return np.zeros(len(vectors), dtype=np.int64)
    return np.asarray(np.argmax(vectors @ found.T, axis=1), dtype=np.int64)


def spread(vectors: Vectors, count: int, draw: np.random.Generator) -> list[int]:
    """Places (count at most) of vectors (N, D) of different kinds, the first of each kind, in their order."""
    kind = assign(vectors, centres(vectors, count, draw))
    return sorted(np.unique(kind, return_index=True)[1].tolist())


def names(questions: Sequence[str], cluster: Ints, count: int) -> list[str]:
    """A few words a cluster, by c-TF-IDF (Grootendorst 2022): frequent in it, rare in the others."""
    words: list[Counter[str]] = [Counter() for _ in range(count)]
    for question, number in zip(questions, cluster, strict=True):
        words[number].update(set(_words(question)))
    everywhere = sum(words, Counter[str]())
    mean = sum(everywhere.values()) / max(1, count)

    def weight(own: Counter[str], word: str) -> float:
        return own[word] * float(np.log1p(mean / everywhere[word]))

    return [", ".join(sorted(own, key=lambda word: (-weight(own, word), word))[:NAME_WORDS]) for own in words]


def describe(
    cluster: Ints,
    uncertainty: Floats,
    novelty: Floats,
    wrong: Floats,
    is_recent: npt.NDArray[np.bool_],
    named: Sequence[str],
) -> list[Cluster]:
    """One a name, largest first; the columns have a place a question (N): `uncertainty` NaN where there is none,
    `wrong` 1 or 0 where the answer was judged and NaN elsewhere.
    """
    count = len(named)
    size = np.bincount(cluster, minlength=count)
    unsure, (error, num_judged) = _means(cluster, uncertainty, count)[0], _means(cluster, wrong, count)
    new = np.bincount(cluster, novelty, minlength=count)
    drift = _shares(cluster[is_recent], count) - _shares(cluster[~is_recent], count)
    if is_recent.all() or not is_recent.any():
        drift = np.zeros(count)
    return [
        Cluster(
            named[n] or "–",
            int(size[n]),
            unsure[n],
            float(new[n] / size[n]),
            float(drift[n]),
            num_judged[n],
            error[n],
        )
        for n in np.argsort(-size, kind="stable")
        if size[n]
    ]


def _means(cluster: Ints, values: Floats, count: int) -> tuple[list[float | None], list[int]]:
    """Of the values of each cluster that are numbers, the mean and how many they are."""
    has = ~np.isnan(values)
    sizes = np.bincount(cluster[has], minlength=count)
    sums = np.bincount(cluster[has], values[has], minlength=count)
    means = [float(total / size) if size else None for total, size in zip(sums, sizes, strict=True)]
    return means, [int(size) for size in sizes]


def _seeds(vectors: Vectors, count: int, draw: np.random.Generator) -> Vectors:
    chosen: list[int] = []
    far = np.ones(len(vectors))
    for _ in range(count):
        if far.sum() <= 0:  # the rest are copies of those chosen
            break
        chosen.append(int(draw.choice(len(vectors), p=far / far.sum())))
        far = np.minimum(far, np.clip(1.0 - vectors @ vectors[chosen[-1]], 0.0, None).astype(np.float64))
        far[chosen[-1]] = 0.0
    return vectors[chosen].copy()


def _shares(cluster: Ints, count: int) -> Floats:
    return np.asarray(np.bincount(cluster, minlength=count) / max(1, len(cluster)), dtype=np.float64)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]{2,}", text.casefold()) if word not in STOP_WORDS]
