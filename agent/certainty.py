"""How well an uncertainty tells wrong answers from right ones, and from it the probability of being wrong.

Learnt from what people said of answers. Pure; where the judgements come from is the caller's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_JUDGED = 20  # with fewer, a probability would be a guess
FOLDS = 5
BINS = 10
BIN_SIZE = 20
CURVE = 33  # places at which the logistic curve is kept

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that a person called right or wrong: its uncertainty in nats, its length in tokens."""

    uncertainty: float
    num_tokens: int
    is_wrong: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """P(wrong) at ascending uncertainties; between them on a line, beyond them as at the ends."""

    uncertainties: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability(self, uncertainty: float) -> float:
        return float(np.interp(uncertainty, self.uncertainties, self.probabilities))


@dataclass(frozen=True, slots=True)
class Report:
    """How good an uncertainty is at one checkpoint.

    `auroc`: how often a wrong answer has more of it than a right one; `length_auroc`: the same of the answer's length,
    the control that it must beat. `aurc`: the mean share of wrong answers among the surest ones, over all cuts
    (Geifman and El-Yaniv 2017). `ece`: how far P(wrong) is off, on judgements it was not fitted to, in up to
    ten bins of nearly equal size (Naeini et al. 2015).
    """

    num_judged: int
    num_wrong: int
    auroc: float
    length_auroc: float
    aurc: float
    ece: float


def calibrate(judged: Sequence[Judged]) -> Calibration | None:
    """Isotonic regression (Zadrozny and Elkan 2002), which follows the data, averaged with logistic regression (Platt
    1999), which steadies it where there is little: a higher uncertainty never means a lower P(wrong). None with fewer
    than MIN_JUDGED, or when all are right or all wrong.
    """
    if not _is_enough(judged):
        return None
    scores, wrong = _columns(judged)
    return _fit(scores, wrong)


def report(judged: Sequence[Judged]) -> Report | None:
    """None where `calibrate` gives None."""
    if not _is_enough(judged):
        return None
    from sklearn.metrics import roc_auc_score

    scores, wrong = _columns(judged)
    lengths = np.array([one.num_tokens for one in judged], dtype=np.float64)
    return Report(
        num_judged=len(judged),
        num_wrong=int(wrong.sum()),
        auroc=float(roc_auc_score(wrong, scores)),
        length_auroc=float(roc_auc_score(wrong, lengths)),
        aurc=aurc(scores, wrong),
        ece=ece(_held_out_probabilities(scores, wrong), wrong),
    )


def aurc(scores: Floats, wrong: Floats) -> float:
    """Mean over k of the share of wrong answers among the k with the lowest scores; equal scores share their place."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores[order], return_inverse=True)
    shared = (np.bincount(group, wrong[order]) / np.bincount(group))[group]
    return float(np.mean(np.cumsum(shared) / np.arange(1, len(scores) + 1)))


def ece(probabilities: Floats, wrong: Floats) -> float:
    """Mean distance between what was said and what was so, over at most BINS bins of nearly equal size, each weighed by
    its size. A bin holds BIN_SIZE at least, and equal probabilities share one: fewer would show their own chance.
    """
    values, group = np.unique(probabilities, return_inverse=True)
    sizes = np.bincount(group)
    per_bin = max(len(wrong) / BINS, BIN_SIZE)
    bins = np.minimum((np.cumsum(sizes) - sizes) // per_bin, max(len(wrong) // per_bin - 1, 0)).astype(int)[group]
    said, so = np.bincount(bins, values[group]), np.bincount(bins, wrong)
    return float(np.abs(said - so).sum() / len(wrong))


def _is_enough(judged: Sequence[Judged]) -> bool:
    num_wrong = sum(one.is_wrong for one in judged)
    return len(judged) >= MIN_JUDGED and 0 < num_wrong < len(judged)


def _columns(judged: Sequence[Judged]) -> tuple[Floats, Floats]:
    scores = np.array([one.uncertainty for one in judged], dtype=np.float64)
    return scores, np.array([one.is_wrong for one in judged], dtype=np.float64)


def _fit(scores: Floats, wrong: Floats) -> Calibration:
    """Halfway between an isotonic and a logistic fit, the isotonic one with one right and one wrong answer added at
    either end: no probability is 0 or 1 for want of data.
    """
    from sklearn.isotonic import IsotonicRegression

    low, high = scores.min(), scores.max()
    isotonic = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    isotonic.fit([low, low, *scores, high, high], [0.0, 1.0, *wrong, 0.0, 1.0])
    places = np.union1d(isotonic.X_thresholds_, np.linspace(low, high, CURVE))
    found = (isotonic.predict(places) + _logistic(scores, wrong, places)) / 2
    return Calibration(tuple(map(float, places)), tuple(map(float, found)))


def _logistic(scores: Floats, wrong: Floats, places: Floats) -> Floats:
    """The overall rate, where all are of one kind or a higher score would mean less likely wrong."""
    from sklearn.linear_model import LogisticRegression

    rate = np.full(len(places), (wrong.sum() + 1.0) / (len(wrong) + 2.0))
    if wrong.min() == wrong.max():
        return rate
    centre, spread = scores.mean(), scores.std() or 1.0
    fitted = LogisticRegression().fit((scores[:, None] - centre) / spread, wrong)
    found: Floats = fitted.predict_proba((places[:, None] - centre) / spread)[:, 1]
    return found if fitted.coef_[0, 0] >= 0 else rate


def _held_out_probabilities(scores: Floats, wrong: Floats) -> Floats:
    """P(wrong) of each by a calibration that has not seen it."""
    found = np.empty_like(scores)
    for fold in range(FOLDS):
        is_held = np.arange(len(scores)) % FOLDS == fold
        fitted = _fit(scores[~is_held], wrong[~is_held])
        found[is_held] = [fitted.probability(score) for score in scores[is_held]]
    return found
