"""Which of a pool's questions to have labelled next: the arms of `make bench-labels`. The active one is what ships."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.acquisition.choosing import WARM_UP, Choice, Shortlist, among, choose, plan, shortlist, wider
from agent.acquisition.factors import SEARCHED, Log, Vectors, cheap_factors
from agent.neighbours import Neighbours
from store.records import Arm

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PoolState:
    """What has no label yet: ids (N), the uncertainty (N,) of the answers that were logged and of those that the newest
    adapter gives (`doubt`), in nats, and the questions' unit vectors (N, dim); `taken` (T, dim) are those of what has a
    label, whose logged answer `was_wrong` (T,). `seed` is the replicate's and the round's.
    """

    ids: Sequence[str]
    logged: Floats
    doubt: Floats
    vectors: Vectors
    taken: Vectors
    was_wrong: Floats
    seed: int


Choose = Callable[[PoolState, int], list[str]]


def at_random(state: PoolState, count: int) -> list[str]:
    return [state.ids[place] for place in np.random.default_rng(state.seed).permutation(len(state.ids))[:count]]


def dense_uncertain(state: PoolState, count: int) -> list[str]:
    """The daemon's own choice after its warm-up, its share at random included: every question was asked once, by one
    person. What it would rather not ask (outliers, repeats) comes at random if nothing else is left.
    """
    planned, draw = plan(count, {Arm.WARM_UP: WARM_UP}), np.random.default_rng(state.seed)
    log = _log(state)
    short = shortlist(log, cheap_factors(log), wider(planned), draw)
    first = _chosen(state, log, short, draw)
    drawn = [one.place for one in first if one.arm is Arm.RANDOM]
    picked = [one for one in first if one.arm is not Arm.RANDOM]
    log = _log(state, [one.place for one in picked])
    places = [*drawn, *(one.place for one in _chosen(state, log, among(picked, planned), draw))]
    rest = [place for place in draw.permutation(len(state.ids)) if place not in set(places)]
    return [state.ids[place] for place in [*places, *rest][:count]]


def _log(state: PoolState, again: Sequence[int] = ()) -> Log:
    """With the newest adapter's doubt where it was asked again."""
    num = len(state.ids)
    nobody = np.zeros(num, dtype=np.int64)
    return Log(
        uncertainty=state.logged,
        checkpoint=nobody,
        principal=nobody,
        question=np.arange(num),
        repairability=np.ones(num),
        is_open=np.ones(num, dtype=np.bool_),
        doubt=np.where(np.isin(np.arange(num), again), state.doubt, np.nan),
        doubted_by=np.ones(num, dtype=np.int64),
    )


def _chosen(state: PoolState, log: Log, short: Shortlist, draw: np.random.Generator) -> list[Choice]:
    vectors, judged = state.vectors[short.places], Neighbours(state.taken, state.was_wrong)
    return choose(
        log,
        cheap_factors(log),
        short,
        vectors=vectors,
        cosines=_nearest(state.vectors, short.places),
        share_wrong=judged.share_wrong(vectors) if 0 < state.was_wrong.sum() < len(state.was_wrong) else None,
        taken=state.taken,
        left=np.array([len(state.ids)]),
        draw=draw,
    )


def _nearest(vectors: Vectors, places: npt.NDArray[np.integer]) -> Vectors:
    """Cosines (M, SEARCHED) of those at `places` to their nearest others, nearest first; NaN where there is none."""
    cosines = vectors[places] @ vectors.T
    cosines[np.arange(len(places)), places] = -np.inf
    near = -np.sort(-cosines, axis=1)[:, : min(SEARCHED, len(vectors) - 1)]
    found = np.full((len(places), SEARCHED), np.nan, dtype=np.float32)
    found[:, : near.shape[1]] = near
    return found


ARMS: Mapping[str, Choose] = {"active": dense_uncertain, "random": at_random}
