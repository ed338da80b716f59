"""A batch of answers to ask about: the first questions are typical ones, later ones dense and uncertain, and a share is
drawn at random so that the choice can be measured. Pure; which rows there are, and who may be asked, is given.

Two stages: factors that need no vectors for all rows, what needs them for a shortlist only.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agent.acquisition.factors import (
    REPEAT_COSINE,
    Bools,
    Cheap,
    Floats,
    Ints,
    Log,
    Vectors,
    density,
    likely_wrong,
    score,
)
from agent.clusters import assign, centres
from store.records import Arm

SHORTLIST = 5000
WARM_UP = 15  # questions: before them, picking the uncertain finds mostly answers in an unwanted form
RANDOM_SHARE = 0.15
SPARE = 20  # rows drawn for one that is to be asked at random: repeats and people asked enough fall away
NUM_CLUSTERS = 8
WIDER = 4  # answers that get a closer look, for one that is asked about
CLUSTER_SHARE = 0.25  # of a batch, at most from one cluster


@dataclass(frozen=True, slots=True)
class Plan:
    """How many questions of a batch each arm gets."""

    num_warm_up: int
    num_random: int
    num_picked: int
    look: int = 1  # so many times as many are picked, of each person and each cluster too


def wider(planned: Plan) -> Plan:
    """With more picked than will be asked about, for a closer look."""
    return replace(planned, look=WIDER) if planned.num_picked else planned


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Places in the log: those to pick from, then those drawn at random, in the order drawn."""

    places: Ints
    is_random: Bools
    plan: Plan
    cluster: Ints | None = None  # of each, if known


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer to ask about, with what it was chosen for."""

    place: int
    arm: Arm
    score: float
    rank: float
    times: int
    density: float
    cluster: int  # -1 for one that was not picked


def plan(size: int, asked: Mapping[Arm | None, int]) -> Plan:
    """`asked` is how many questions each arm has had. The control arm's share holds over all batches, so that it also
    holds for batches of one.
    """
    num_warm_up = min(size, max(0, WARM_UP - sum(asked.values())))
    if num_warm_up:
        return Plan(num_warm_up, 0, 0)
    num_random = asked.get(Arm.RANDOM, 0)
    so_far = num_random + asked.get(Arm.DENSE_UNCERTAIN, 0)
    due = math.floor(RANDOM_SHARE * (so_far + size) + 0.5) - num_random
    num_random = min(size, max(0, due))
    return Plan(0, num_random, size - num_random)


def shortlist(log: Log, cheap: Cheap, planned: Plan, draw: np.random.Generator, size: int = SHORTLIST) -> Shortlist:
    """Of the open answers that are no outliers: the best by the cheap factors, each question once; for a warm-up, where
    only what is typical counts, an even sample. And for the control arm an even sample of all that are open.
    """
    open_ = np.flatnonzero(log.is_open)
    fit = open_[~cheap.is_outlier[open_]]
    if planned.num_warm_up:
        picked = draw.permutation(fit)[:size]
    else:
        picked = _best(fit, cheap.product[fit], log.question[fit], size)
    drawn = draw.permutation(open_)[: planned.num_random * SPARE]
    is_random = np.arange(len(picked) + len(drawn)) >= len(picked)
    return Shortlist(np.concatenate([picked, drawn]), is_random, planned)


def among(picked: Sequence[Choice], planned: Plan) -> Shortlist:
    """Of these alone, to pick from."""
    places = np.array([one.place for one in picked], dtype=np.int64)
    cluster = np.array([one.cluster for one in picked], dtype=np.int64)
    return Shortlist(places, np.zeros(len(picked), dtype=np.bool_), Plan(0, 0, planned.num_picked), cluster)


def choose(
    log: Log,
    cheap: Cheap,
    short: Shortlist,
    *,
    vectors: Vectors,
    cosines: Vectors,
    share_wrong: Floats | None,
    taken: Vectors,
    left: Ints,
    draw: np.random.Generator,
) -> list[Choice]:
    """The batch, the random ones first.

    `vectors` (M, D) are the shortlist's, unit length, `cosines` (M, k) those of their nearest neighbours, `share_wrong`
    (M,) how many of the judged answers to questions near them were wrong, if that is known; `taken`
    (T, D) the questions that were asked or judged before; `left` how many more each person may be asked about, by their
    number. A repeat of what is taken, or chosen here, is not asked.
    """
    dense = density(cosines)
    scores = score(likely_wrong(cheap.rank[short.places], share_wrong) * cheap.worth[short.places], dense)
    by_density = bool(short.plan.num_warm_up)
    places = _Places(log.principal[short.places], vectors, ~_is_repeat(vectors, taken), left.copy())
    chosen = [(m, Arm.RANDOM) for m in places.take(np.flatnonzero(short.is_random), short.plan.num_random)]
    picked = np.flatnonzero(~short.is_random)
    order = picked[np.argsort(-(dense if by_density else scores)[picked], kind="stable")]
    size, look = short.plan.num_warm_up or short.plan.num_picked, short.plan.look
    cluster = short.cluster
    if cluster is None:
        cluster = np.full(len(vectors), -1, dtype=np.int64)
        cluster[order] = assign(vectors[order], centres(vectors[order], NUM_CLUSTERS, draw))
    arm = Arm.WARM_UP if by_density else Arm.DENSE_UNCERTAIN
    places.left *= look
    cap = look * math.ceil(CLUSTER_SHARE * size)
    chosen += [(m, arm) for m in places.take(order, look * size, cluster, cap)]
    return [
        _choice(int(short.places[m]), arm, float(scores[m]), cheap, float(dense[m]), int(cluster[m]))
        for m, arm in chosen
    ]


def reason(choice: Choice, probability_wrong: float | None) -> str:
    """Why this is asked, in words for the person who is asked."""
    if choice.arm is Arm.RANDOM:
        return "picked at random, to measure whether picking helps"
    if choice.arm is Arm.WARM_UP:
        return f"typical of what is asked here; the first {WARM_UP} questions are, before any are picked for doubt"
    told = f"less sure than {choice.rank:.0%} of recent answers"
    if probability_wrong is not None:
        told = f"wrong with {probability_wrong:.0%}, as such answers were judged; {told}"
    if choice.times > 1:
        told += f", asked {choice.times} times"
    return f"{told}, and like other questions to {choice.density:.0%}"


@dataclass(slots=True)
class _Places:
    """Takes from a shortlist until a batch is full, as far as people, clusters and repeats allow."""

    principal: Ints
    vectors: Vectors
    is_free: Bools
    left: Ints

    def take(self, order: Ints, size: int, cluster: Ints | None = None, cap: int = 0) -> Iterator[int]:
        """`cap` holds for each cluster; without clusters there is none."""
        used: Counter[int] = Counter()
        for m in map(int, order):
            if size < 1:
                return
            if not self.is_free[m] or self.left[self.principal[m]] < 1:
                continue
            if cluster is not None and used[int(cluster[m])] >= cap:
                continue
            self.is_free &= self.vectors @ self.vectors[m] < REPEAT_COSINE
            self.is_free[m] = False  # a zero vector is not like itself
            self.left[self.principal[m]] -= 1
            if cluster is not None:
                used[int(cluster[m])] += 1
            size -= 1
            yield m


def _best(fit: Ints, product: Floats, question: Ints, size: int) -> Ints:
    """The newest of equals first; a question that was asked often has one place."""
    order = np.lexsort((-fit, -product))
    _, first = np.unique(question[order], return_index=True)
    return np.asarray(fit[order[np.sort(first)[:size]]], dtype=np.int64)


def _is_repeat(vectors: Vectors, taken: Vectors) -> Bools:
    if not len(taken):
        return np.zeros(len(vectors), dtype=np.bool_)
    rows = range(0, len(vectors), 1000)  # few at once, for the products are (M, T)
    found: list[npt.NDArray[np.bool_]] = [(vectors[n : n + 1000] @ taken.T).max(axis=1) >= REPEAT_COSINE for n in rows]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.bool_)


def _choice(place: int, arm: Arm, scored: float, cheap: Cheap, dense: float, cluster: int) -> Choice:
    return Choice(place, arm, scored, float(cheap.rank[place]), int(cheap.times[place]), dense, cluster)
