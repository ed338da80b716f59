"""How likely an answer is wrong, learnt from answers that people judged: its trace, and how near questions fared.

One score; `agent.certainty` turns it into a probability. One signal alone misses what a model of this size does: it
can be sure of nonsense (an answer that repeats itself), and whole kinds of questions are beyond it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.certainty import MIN_JUDGED, Calibration, Floats, Judged, Report, calibrate, report
from agent.uncertainty import mean_entropy, peak_entropy
from store.records import TokenTrace

FOLDS = 5
NEAREST = 10
MIN_NEAR = 50  # judged answers from which near ones are looked at: among fewer, the nearest are not near
PRIOR = 2.0  # how many answers the overall rate counts for among the nearest
NEWEST = 2000  # judged answers; older ones are left out, and learning stays a matter of a second

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An answer that a person called right or wrong: its tokens, and its question's unit vector (dim,) where there is
    one; all vectors are of one length.
    """

    tokens: Sequence[TokenTrace]
    vector: Vector | None
    is_wrong: bool


class Detector:
    """Logistic regression (L2, on standardised features) over mean entropy, peak entropy, the logarithm of the length
    and the log-odds of being wrong among the ten nearest judged questions.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        """ValueError when all are right or all wrong."""
        wrong = np.array([one.is_wrong for one in examples], dtype=np.float64)
        if not 0 < wrong.sum() < len(wrong):
            raise ValueError(f"{wrong.sum():.0f} of {len(wrong)} answers are wrong; give some of both kinds")
        self._near = _Near(examples) if len(examples) >= MIN_NEAR else None
        self._learn(self._features(examples, is_own=True), wrong)

    def scores(self, examples: Sequence[Example]) -> Floats:
        """Log-odds of being wrong, of each; what was said of them is not looked at."""
        features = (self._features(examples, is_own=False) - self._mean) / self._spread
        scores: Floats = features @ self._weights + self._bias
        return scores

    def score(self, tokens: Sequence[TokenTrace], vector: Vector | None) -> float:
        """Log-odds of being wrong, of one answer."""
        return float(self.scores([Example(tokens, vector, False)])[0])

    def _features(self, examples: Sequence[Example], *, is_own: bool) -> Floats:
        own = np.array([_traced(one.tokens) for one in examples], dtype=np.float64).reshape(len(examples), 3)
        return own if self._near is None else np.column_stack([own, self._near.log_odds(examples, is_own=is_own)])

    def _learn(self, features: Floats, wrong: Floats) -> None:
        from sklearn.linear_model import LogisticRegression

        self._mean, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        fitted = LogisticRegression(max_iter=1000).fit((features - self._mean) / self._spread, wrong)
        self._weights, self._bias = fitted.coef_[0], float(fitted.intercept_[0])


class _Near:
    """Judged questions, to look up how the nearest of them fared."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._rate = (sum(one.is_wrong for one in examples) + 0.5) / (len(examples) + 1.0)
        known = [one for one in examples if one.vector is not None]
        self._wrong = np.array([one.is_wrong for one in known], dtype=np.float64)
        self._vectors = np.array([one.vector for one in known], dtype=np.float32)

    def log_odds(self, examples: Sequence[Example], *, is_own: bool) -> Floats:
        """Of being wrong, among the nearest; `is_own`: these are the judged ones themselves, and none is its own
        neighbour. The overall rate, where there is no vector, or one of another embedder.
        """
        found = np.full(len(examples), self._rate)
        asked = [place for place, one in enumerate(examples) if self._is_comparable(one.vector)]
        if asked and len(self._wrong) > NEAREST:
            cosines = np.array([examples[place].vector for place in asked], dtype=np.float32) @ self._vectors.T
            if is_own:
                np.fill_diagonal(cosines, -np.inf)
            nearest = np.argpartition(-cosines, NEAREST, axis=1)[:, :NEAREST]
            found[asked] = (self._wrong[nearest].sum(axis=1) + PRIOR * self._rate) / (NEAREST + PRIOR)
        log_odds: Floats = np.log(found / (1.0 - found))
        return log_odds

    def _is_comparable(self, vector: Vector | None) -> bool:
        return vector is not None and vector.shape == self._vectors.shape[1:]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What people's judgements of one checkpoint's answers teach of its others."""

    detector: Detector
    calibration: Calibration
    report: Report

    def probability_wrong(self, tokens: Sequence[TokenTrace], vector: Vector | None) -> float | None:
        """Of one answer; None for one without tokens."""
        return self.calibration.probability(self.detector.score(tokens, vector)) if tokens else None


def learn(examples: Sequence[Example]) -> Knowledge | None:
    """From judged answers, in the order of the judgements; the newest 2,000 of them count. None while there are fewer
    than MIN_JUDGED, or not two right and two wrong. The calibration and the report are of held-out scores.
    """
    examples = examples[-NEWEST:]
    num_wrong = sum(one.is_wrong for one in examples)
    if len(examples) < MIN_JUDGED or min(num_wrong, len(examples) - num_wrong) < 2:
        return None
    scores = held_out_scores(examples)
    judged = [Judged(float(s), len(one.tokens), one.is_wrong) for s, one in zip(scores, examples, strict=True)]
    calibration, told = calibrate(judged), report(judged)
    return Knowledge(Detector(examples), calibration, told) if calibration and told else None


def held_out_scores(examples: Sequence[Example]) -> Floats:
    """The score of each by a detector that was not told of it: from five folds in turn, each with its share of the
    wrong ones. ValueError when there are not two right and two wrong.
    """
    fold = _folds([one.is_wrong for one in examples])
    found = np.empty(len(examples))
    for number in range(FOLDS):
        asked = [one for one, of in zip(examples, fold, strict=True) if of == number]
        if asked:
            told = [one for one, of in zip(examples, fold, strict=True) if of != number]
            found[fold == number] = Detector(told).scores(asked)
    return found


def _folds(is_wrong: Sequence[bool]) -> npt.NDArray[np.int64]:
    wrong = np.array(is_wrong, dtype=bool)
    return np.where(wrong, np.cumsum(wrong) - 1, np.cumsum(~wrong) - 1) % FOLDS


def _traced(tokens: Sequence[TokenTrace]) -> tuple[float, float, float]:
    return mean_entropy(tokens) or 0.0, peak_entropy(tokens) or 0.0, math.log1p(len(tokens))
