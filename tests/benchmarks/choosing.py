"""Which of a pool's questions to have labelled next: the arms of `make bench-labels`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from agent.embedding import Vectors

NEAREST = 10
OUTLIERS = 0.02  # the most uncertain share, which is more often noise than a lesson
SAME = 0.98  # cosine from which two questions are one
CLUSTERS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PoolState:
    """What has no label yet: ids (N), the uncertainty (N,) of the newest checkpoint's answers, in any unit, and the
    questions' unit vectors (N, dim). `seed` is the replicate's and the round's.
    """

    ids: Sequence[str]
    uncertainties: Floats
    vectors: Vectors
    seed: int


Choose = Callable[[PoolState, int], list[str]]


def at_random(state: PoolState, count: int) -> list[str]:
    return [state.ids[place] for place in np.random.default_rng(state.seed).permutation(len(state.ids))[:count]]


def dense_uncertain(state: PoolState, count: int) -> list[str]:
    """Rank of the uncertainty x density (mean cosine to the ten nearest), the most uncertain 2 % and repeats left out,
    no cluster (k-means) over its share as long as others have some.
    """
    cosines = state.vectors @ state.vectors.T
    np.fill_diagonal(cosines, -np.inf)
    places = np.argsort(-_worth(state.uncertainties, cosines), kind="stable")
    certain = state.uncertainties <= np.quantile(state.uncertainties, 1 - OUTLIERS)
    clusters = _clusters(state)
    taken: list[int] = []
    for cap in (-(-count // CLUSTERS), count):
        for place in places:
            is_new = place not in taken and not any(cosines[place, other] >= SAME for other in taken)
            is_in_cap = sum(clusters[other] == clusters[place] for other in taken) < cap
            if len(taken) < count and certain[place] and is_new and is_in_cap:
                taken.append(int(place))
    left = [int(place) for place in places if place not in taken]  # outliers and repeats, if nothing else is there
    return [state.ids[place] for place in [*taken, *left][:count]]


def _worth(uncertainties: Floats, cosines: npt.NDArray[np.float32]) -> Floats:
    rank = np.argsort(np.argsort(uncertainties, kind="stable"), kind="stable") / max(len(uncertainties) - 1, 1)
    near = min(NEAREST, len(uncertainties) - 1)
    density = np.sort(cosines, axis=1)[:, -near:].mean(axis=1) if near else np.ones(len(uncertainties))
    worth: Floats = rank * density
    return worth


def _clusters(state: PoolState) -> npt.NDArray[np.int64]:
    wanted = min(CLUSTERS, len(np.unique(state.vectors, axis=0)))
    found: npt.NDArray[np.int64] = KMeans(wanted, n_init=4, random_state=state.seed).fit_predict(state.vectors)
    return found


ARMS: Mapping[str, Choose] = {"active": dense_uncertain, "random": at_random}
