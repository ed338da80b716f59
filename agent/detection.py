"""How likely an answer is wrong, learnt from answers that people judged: its trace, and how near questions fared.

One score; `agent.certainty` turns it into a probability. One signal alone misses what a model of this size does: it
can be sure of nonsense (an answer that repeats itself), and whole kinds of questions are beyond it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from agent.certainty import MIN_JUDGED, Calibration, Floats, Judged, Report, calibrate, report
from agent.neighbours import Neighbours
from store.records import TokenTrace

FOLDS = 5
MIN_NEAR = 50  # judged answers from which near ones are looked at: among fewer, the nearest are not near
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
    """Logistic regression (L2, on standardised features) over what the trace tells and the log-odds of being wrong
    among the nearest judged questions, the nearer the heavier.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        """ValueError when all are right or all wrong."""
        wrong = np.array([one.is_wrong for one in examples], dtype=np.float64)
        if not 0 < wrong.sum() < len(wrong):
            raise ValueError(f"{wrong.sum():.0f} of {len(wrong)} answers are wrong; give some of both kinds")
        self._near = _Near(examples) if len(examples) >= MIN_NEAR else None
        self._learn(self._own_features(examples), wrong)

    def scores(self, examples: Sequence[Example]) -> Floats:
        """Log-odds of being wrong, of each; what was said of them is not looked at."""
        traced = _traces(examples)
        near = [] if self._near is None else [self._near.log_odds(examples)]
        features = (np.column_stack([traced, *near]) - self._mean) / self._spread
        scores: Floats = features @ self._weights + self._bias
        return scores

    def score(self, tokens: Sequence[TokenTrace], vector: Vector | None) -> float:
        """Log-odds of being wrong, of one answer."""
        return float(self.scores([Example(tokens, vector, False)])[0])

    def _own_features(self, examples: Sequence[Example]) -> Floats:
        """Of the judged ones themselves. What near ones tell of each comes from other folds: among all but itself, the
        rest of a topic would give away what was said of it, by what is missing.
        """
        traced = _traces(examples)
        if self._near is None:
            return traced
        near, fold = np.empty(len(examples)), _folds([one.is_wrong for one in examples])
        for asked, told, is_asked in _split(examples, fold):
            near[is_asked] = _Near(told).log_odds(asked)
        return np.column_stack([traced, near])

    def _learn(self, features: Floats, wrong: Floats) -> None:
        from sklearn.linear_model import LogisticRegression

        self._mean, spread = features.mean(axis=0), features.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        fitted = LogisticRegression(max_iter=1000).fit((features - self._mean) / self._spread, wrong)
        self._weights, self._bias = fitted.coef_[0], float(fitted.intercept_[0])


class _Near:
    """Judged questions, to look up how the nearest of them fared."""

    def __init__(self, examples: Sequence[Example]) -> None:
        known = [one for one in examples if one.vector is not None]
        vectors = np.array([one.vector for one in known], dtype=np.float32)
        self._shape = vectors.shape[1:]
        self._neighbours = Neighbours(vectors, np.array([one.is_wrong for one in known], dtype=np.float64))

    def log_odds(self, examples: Sequence[Example]) -> Floats:
        """Of being wrong, among the nearest. The overall rate, where there is no vector, or one of another embedder."""
        vectors = np.zeros((len(examples), *self._shape), dtype=np.float32)
        for place, one in enumerate(examples):
            if one.vector is not None and one.vector.shape == self._shape:
                vectors[place] = one.vector
        found = self._neighbours.share_wrong(vectors)
        log_odds: Floats = np.log(found / (1.0 - found))
        return log_odds


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
    found = np.empty(len(examples))
    for asked, told, is_asked in _split(examples, _folds([one.is_wrong for one in examples])):
        found[is_asked] = Detector(told).scores(asked)
    return found


def _folds(is_wrong: Sequence[bool]) -> npt.NDArray[np.int64]:
    wrong = np.array(is_wrong, dtype=bool)
    return np.where(wrong, np.cumsum(wrong) - 1, np.cumsum(~wrong) - 1) % FOLDS


def _split(
    examples: Sequence[Example], fold: npt.NDArray[np.int64]
) -> Iterator[tuple[list[Example], list[Example], npt.NDArray[np.bool_]]]:
    """Each fold, the others, and where the fold's are among all."""
    for number in np.unique(fold):
        is_asked = fold == number
        yield list(compress(examples, is_asked)), list(compress(examples, ~is_asked)), is_asked


def _traces(examples: Sequence[Example]) -> Floats:
    return np.array([_traced(one.tokens) for one in examples], dtype=np.float64).reshape(len(examples), -1)


def _traced(tokens: Sequence[TokenTrace]) -> tuple[float, ...]:
    """Entropies' mean, peak and spread, the logarithm of the length, and how unlikely the answer as a whole was (nats),
    which tells as much as sampling many does (Aichberger et al. 2024).
    """
    entropies = [token.entropy for token in tokens] or [0.0]
    unlikely = -sum(token.logprob for token in tokens)
    return float(np.mean(entropies)), max(entropies), float(np.std(entropies)), math.log1p(len(tokens)), unlikely
