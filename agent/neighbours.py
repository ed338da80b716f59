"""How the questions near one fared: the share of wrong answers among those that people judged, the nearer the heavier.

Whole kinds of question are beyond a model of this size, however sure it sounds, and like questions lie together.
"""

import numpy as np
import numpy.typing as npt

NEAREST = 50
SHARPNESS = 10.0  # a neighbour counts e times as much for every tenth of a cosine that it is nearer
PRIOR = 0.2  # how much of the nearest one the overall rate counts for
CHUNK = 1000

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


class Neighbours:
    """Unit `vectors` (M, dim) of judged questions, and whether each answer was wrong (M,)."""

    def __init__(self, vectors: Vectors, wrong: Floats) -> None:
        self._vectors = vectors
        self._wrong = wrong
        self._rate = (float(wrong.sum()) + 0.5) / (len(wrong) + 1.0)

    def share_wrong(self, vectors: Vectors) -> Floats:
        """Of each (N,) question by its unit vector (N, dim); the overall rate for one of zeros, and while nothing is
        judged.
        """
        found = np.full(len(vectors), self._rate)
        if len(self._wrong):
            for start in range(0, len(vectors), CHUNK):
                some = vectors[start : start + CHUNK]
                is_known = some.any(axis=1)
                found[start : start + CHUNK][is_known] = self._smoothed(some[is_known] @ self._vectors.T)
        return found

    def _smoothed(self, cosines: Vectors) -> Floats:
        count = min(NEAREST, cosines.shape[1])
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        weights = np.exp(SHARPNESS * (np.take_along_axis(cosines, nearest, axis=1).astype(np.float64) - 1.0))
        prior = PRIOR * weights.max(axis=1)
        wrong = (weights * self._wrong[nearest]).sum(axis=1)
        shares: Floats = (wrong + prior * self._rate) / (weights.sum(axis=1) + prior)
        return shares
