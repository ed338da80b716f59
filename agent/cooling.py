"""A learning rate that lets a run end at rest: high until the lessons are learnt about, then down to nothing.

As high as it must be to learn quickly, single lessons come and go from one step to the next, and whichever are gone
when the run stops stay wrong. A stretch at a falling rate settles them: the warm-up, stable, decay schedule of Hu et
al. 2024 ("MiniCPM"), with the decay begun by the loss instead of a number of steps.
"""

import math


class CoolingRate:
    """Shares of the learning rate by step, for torch's LambdaLR: up over `warmup` steps, then falling slowly so that
    nothing is left after `steps`, and quickly once `cool` was told. `share` is of the steps up to then: how many more
    there are. `last` is the step that ends the run.
    """

    def __init__(self, *, warmup: int, steps: int, share: float) -> None:
        self.last = steps
        self._warmup = warmup
        self._steps = steps
        self._share = share
        self._cools_from: int | None = None

    def cool(self, step: int) -> None:
        """After so many steps. What is told later changes nothing."""
        if self._cools_from is None:
            self._cools_from = step
            self.last = min(self._steps, step + math.ceil(self._share * step))

    def __call__(self, step: int) -> float:
        """What the step after so many is worth, from 0 to 1."""
        if step < self._warmup:
            return (step + 1) / self._warmup
        slow = max(0.0, (self._steps - step) / max(1, self._steps - self._warmup))
        if self._cools_from is None:
            return slow
        return slow * max(0.0, (self.last - step) / max(1, self.last - self._cools_from))
