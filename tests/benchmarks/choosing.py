"""Which of a pool's questions to have labelled next: the arms of `make bench-labels`. The active one is what ships."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.acquisition.choosing import WARM_UP, choose, plan, shortlist
from agent.acquisition.factors import SEARCHED, Log, Vectors, cheap_factors
from store.records import Arm

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PoolState:
    """What has no label yet: ids (N), the uncertainty (N,) of the answers that were logged and of those that the newest
    adapter gives (`doubt`), in nats, and the questions' unit vectors (N, dim); `taken` (T, dim) are those of what has a
    label. `seed` is the replicate's and the round's.
    """

    ids: Sequence[str]
    logged: Floats
    doubt: Floats
    vectors: Vectors
    taken: Vectors
    seed: int


Choose = Callable[[PoolState, int], list[str]]


def at_random(state: PoolState, count: int) -> list[str]:
    return [state.ids[place] for place in np.random.default_rng(state.seed).permutation(len(state.ids))[:count]]


def dense_uncertain(state: PoolState, count: int) -> list[str]:
    """The daemon's own choice after its warm-up, its share at random included: every question was asked once, by one
    person. What it would rather not ask (outliers, repeats) comes at random if nothing else is left.
    """
    num = len(state.ids)
    nobody = np.zeros(num, dtype=np.int64)
    log = Log(
        uncertainty=state.logged,
        checkpoint=nobody,
        principal=nobody,
        question=np.arange(num),
        repairability=np.ones(num),
        is_open=np.ones(num, dtype=np.bool_),
        doubt=state.doubt,
    )
    cheap, draw = cheap_factors(log), np.random.default_rng(state.seed)
    short = shortlist(log, cheap, plan(count, {Arm.WARM_UP: WARM_UP}), draw)
    vectors = state.vectors[short.places]
    chosen = choose(
        log,
        cheap,
        short,
        vectors=vectors,
        cosines=_nearest(state.vectors, short.places),
        taken=state.taken,
        left=np.array([count]),
        draw=draw,
    )
    places = [one.place for one in chosen]
    rest = [place for place in draw.permutation(num) if place not in set(places)]
    return [state.ids[place] for place in [*places, *rest][:count]]


def _nearest(vectors: Vectors, places: npt.NDArray[np.integer]) -> Vectors:
    """Cosines (M, SEARCHED) of those at `places` to their nearest others, nearest first; NaN where there is none."""
    cosines = vectors[places] @ vectors.T
    cosines[np.arange(len(places)), places] = -np.inf
    near = -np.sort(-cosines, axis=1)[:, : min(SEARCHED, len(vectors) - 1)]
    found = np.full((len(places), SEARCHED), np.nan, dtype=np.float32)
    found[:, : near.shape[1]] = near
    return found


ARMS: Mapping[str, Choose] = {"active": dense_uncertain, "random": at_random}
