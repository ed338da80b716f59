"""From scores after each round of labels to how many labels an arm needs. Pure; the arms' runs are elsewhere."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000

Floats = npt.NDArray[np.float64]


def labels_needed(budgets: Sequence[int], curve: Floats, target: float) -> float:
    """How many labels (R,) it takes until the accuracy (R,) first is the target's: on a line between rounds, and what
    was reached counts as kept. Infinity where it never is.
    """
    best = np.maximum.accumulate(curve)
    if best[-1] < target:
        return float("inf")
    place = int(np.argmax(best >= target))
    if place == 0:
        return float(budgets[0])
    share = (target - best[place - 1]) / (best[place] - best[place - 1])
    return float(budgets[place - 1] + share * (budgets[place] - budgets[place - 1]))


def ratio(budgets: Sequence[int], active: Floats, random: Floats) -> float:
    """Labels that the active arm needs for the best that the random arm came to, over what that one needed. NaN where
    random labels taught nothing past the warm-up: there is then nothing to reach.
    """
    target = float(random.max())
    needed = labels_needed(budgets, random, target)
    return float("nan") if needed == budgets[0] else labels_needed(budgets, active, target) / needed


def interval(budgets: Sequence[int], active: Sequence[Floats], random: Sequence[Floats]) -> tuple[float, float]:
    """95 % of the ratio, by a bootstrap over seeds, and over the test items within each, the same for both arms.
    Scores are one (R, N) array a seed. NaN counts as infinity: a sample that shows nothing shows no gain.
    """
    draw = np.random.default_rng(3)
    arms = np.stack([active, random]).astype(np.float64)  # (2, S, R, N)
    num_seeds, num_items = arms.shape[1], arms.shape[3]
    curves = np.zeros((RESAMPLES, 2, len(budgets)))
    for _ in range(num_seeds):
        drawn = draw.integers(num_seeds, size=RESAMPLES)
        counts = draw.multinomial(num_items, np.full(num_items, 1 / num_items), size=RESAMPLES)
        for seed in range(num_seeds):
            here = drawn == seed
            curves[here] += np.einsum("bn,arn->bar", counts[here] / num_items, arms[:, seed]) / num_seeds
    found = [ratio(budgets, *both) for both in curves]
    ordered = np.sort(np.where(np.isnan(found), np.inf, found))
    return float(ordered[int(0.025 * RESAMPLES)]), float(ordered[int(0.975 * RESAMPLES) - 1])
