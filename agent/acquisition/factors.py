"""What makes an answer worth asking about, each factor in [0, 1]: how unsure it is, how many questions are like it, how
often it was asked, how likely asking settles it. Pure, over columns with one place an answer (N).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WINDOW = 1000  # recent answers of a checkpoint that an uncertainty is ranked among
MIN_WINDOW = 50  # among fewer nothing can be told to be an outlier
OUTLIER_RANK = 0.98
MAX_PER_PERSON = 3  # times that one person's asking counts: demand can't be made up alone
NEIGHBOURS = 10
SEARCHED = 32  # neighbours to look at, for some are repeats
REPEAT_COSINE = 0.97  # from here two questions are the same in other words
NO_NEIGHBOURS = 0.5

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Log:
    """All scored answers, oldest first; those that are open may be asked about, the rest say what is usual."""

    uncertainty: Floats  # mean token entropy in nats; NaN when no token was made
    checkpoint: Ints
    principal: Ints
    question: Ints  # the same key is the same question
    repairability: Floats  # how likely a person, a document or a verifier settles it
    is_open: Bools
    doubt: Floats  # uncertainty of what answers now, where that was asked again; else NaN
    doubted_by: Ints  # its checkpoint, there
    is_doubt_as_logged: bool = True  # whether doubts are of the same kind as the uncertainties


@dataclass(frozen=True, slots=True)
class Cheap:
    """The factors that need no vectors, of every answer."""

    rank: Floats
    is_outlier: Bools  # too unsure to be typical of anything
    times: Ints  # how often it was asked, each person counted MAX_PER_PERSON times at most
    worth: Floats  # by demand and repairability
    product: Floats


def cheap_factors(log: Log) -> Cheap:
    rank, is_outlier = ranked(log.uncertainty, log.checkpoint)
    again, is_outlier_again = ranked_again(log)
    rank, is_outlier = np.where(np.isnan(again), rank, again), is_outlier | is_outlier_again
    times = times_asked(log.question, log.principal)
    worth = demand(times) * log.repairability
    return Cheap(rank, is_outlier, times, worth, rank * worth)


def ranked(uncertainty: Floats, checkpoint: Ints, window: int = WINDOW) -> tuple[Floats, Bools]:
    """The share of the checkpoint's last `window` answers that are at most as unsure: no scale to tune, as the same
    entropy means different things under different models. And whether it is in their top 2 %: buying outliers is what
    makes active learning lose to chance (2302.06976).
    """
    rank, is_outlier = np.zeros(len(uncertainty)), np.zeros(len(uncertainty), dtype=np.bool_)
    for number in np.unique(checkpoint):
        places = np.flatnonzero((checkpoint == number) & ~np.isnan(uncertainty))
        recent = np.sort(uncertainty[places[-window:]])
        if len(recent):
            rank[places] = np.searchsorted(recent, uncertainty[places], side="right") / len(recent)
        if len(recent) >= MIN_WINDOW:
            below = np.searchsorted(recent, uncertainty[places], side="left") / len(recent)
            is_outlier[places] = below >= OUTLIER_RANK
    return rank, is_outlier


def ranked_again(log: Log) -> tuple[Floats, Bools]:
    """The same of the answers that the checkpoint which answers now would give, NaN where it was not asked again: the
    share of its own last answers that are at most as unsure. While these are few, what it was asked again counts with
    them, each question once, and none is an outlier. Where doubts are of another kind than what is logged, they are
    ranked among each other alone.
    """
    rank, is_outlier = np.full(len(log.doubt), np.nan), np.zeros(len(log.doubt), dtype=np.bool_)
    again = np.flatnonzero(~np.isnan(log.doubt))
    for number in np.unique(log.doubted_by[again]):
        places = again[log.doubted_by[again] == number]
        is_own = (log.checkpoint == number) & ~np.isnan(log.uncertainty)
        usual = np.sort(log.uncertainty[np.flatnonzero(is_own & log.is_doubt_as_logged)[-WINDOW:]])
        if len(usual) >= MIN_WINDOW:
            below = np.searchsorted(usual, log.doubt[places], side="left") / len(usual)
            is_outlier[places] = below >= OUTLIER_RANK
        else:
            _, each = np.unique(log.question[places], return_index=True)
            usual = np.sort(np.concatenate([usual, log.doubt[places[each]]]))
        rank[places] = np.searchsorted(usual, log.doubt[places], side="right") / len(usual)
    return rank, is_outlier


def times_asked(question: Ints, principal: Ints) -> Ints:
    """How often each answer's question was asked in all."""
    _, number = np.unique(question, return_inverse=True)
    num_people = int(principal.max(initial=0)) + 1
    pairs, counts = np.unique(number.astype(np.int64) * num_people + principal, return_counts=True)
    per_question = np.bincount(pairs // num_people, weights=np.minimum(counts, MAX_PER_PERSON))
    return per_question.astype(np.int64)[number]


def demand(times: Ints) -> Floats:
    """1/2 for once, then ever slower towards 1."""
    return np.asarray(times / (times + 1.0), dtype=np.float64)


def density(cosines: Vectors) -> Floats:
    """The mean cosine to the NEIGHBOURS nearest questions, from the (N, SEARCHED) nearest first, NaN where there is
    none. Repeats do not count, or copies of a question would make it typical. Without others, as dense as the middle.
    """
    is_other = ~np.isnan(cosines) & (cosines < REPEAT_COSINE)
    is_near = is_other & (np.cumsum(is_other, axis=1) <= NEIGHBOURS)
    count = is_near.sum(axis=1)
    total = np.where(is_near, cosines, 0.0).sum(axis=1, dtype=np.float64)
    found = np.divide(total, count, out=np.full(len(cosines), np.nan), where=count > 0)
    middle = float(np.median(found[count > 0])) if count.any() else NO_NEIGHBOURS
    return np.asarray(np.clip(np.where(count > 0, found, middle), 0.0, 1.0), dtype=np.float64)


def likely_wrong(rank: Floats, share_wrong: Floats | None) -> Floats:
    """From 0 to 1 (N,): the mean of how unsure the answers are, by `rank` (N,), and of the share of wrong answers among
    judged ones near them (N,), where that is known. An adapter is sure of much that it gets wrong (measured on 120
    questions of mixed kinds after 15 or 35 labels: AUROC 0.55 by uncertainty alone, 0.66 by both).
    """
    return rank if share_wrong is None else np.asarray((rank + share_wrong) / 2)


def score(product: Floats, dense: Floats) -> Floats:
    """The geometric mean of the four factors: it orders as their product does, and reads like one of them."""
    return np.asarray((product * dense) ** 0.25, dtype=np.float64)


def repairability(principals: Sequence[str], settled: Mapping[str, tuple[int, int]]) -> Floats:
    """How likely asking a person settles it: of the questions about each one's answers, how many were not skipped.
    `settled` has how many were settled and how many resolved; whom nobody was asked about gets the benefit of doubt.
    """
    counts = (settled.get(name, (0, 0)) for name in principals)
    return np.array([(good + 1) / (all_ + 1) for good, all_ in counts], dtype=np.float64)
