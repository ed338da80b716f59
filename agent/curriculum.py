"""Which lesson comes next: of corrections that the model still gets wrong, in words it has not been asked in yet.

Corrections are drawn in proportion to their latest loss (kin: Katharopoulos and Fleuret 2018), each at least once; what
is right already is seldom trained on again, where it would only make the model surer and forget more.
"""

import random
from collections.abc import Hashable, Iterator, Mapping, Sequence

from torch.utils.data import Sampler

SMOOTHING = 0.5  # of a correction's loss over its visits
FLOOR = 0.05  # a correction that is right is still looked at: others can undo it


class Curriculum(Sampler[int]):  # type: ignore[misc]
    """Yields row numbers without end, a dataset's length at a time."""

    def __init__(self, subjects: Sequence[Hashable], seed: int) -> None:
        """`subjects` names for each row what it teaches; rows of one subject take turns."""
        self._subjects = list(subjects)
        self._order = random.Random(seed)  # noqa: S311 - order, not secrets
        self._rows: dict[Hashable, list[int]] = {}
        for row, subject in enumerate(subjects):
            self._rows.setdefault(subject, []).append(row)
        self._new = self._order.sample(list(self._rows), len(self._rows))
        self._turns: dict[Hashable, list[int]] = {subject: [] for subject in self._rows}
        self._losses: dict[Hashable, float] = {}

    def __len__(self) -> int:
        return len(self._subjects)

    def __iter__(self) -> Iterator[int]:
        for _ in self._subjects:
            subject = self._subject()
            turns = self._turns[subject]
            if not turns:
                turns += self._order.sample(self._rows[subject], len(self._rows[subject]))
            yield turns.pop()

    def _subject(self) -> Hashable:
        if self._new:
            return self._new.pop()
        seen = list(self._losses)
        return self._order.choices(seen, [max(self._losses[subject], FLOOR) for subject in seen])[0]

    def learnt(self, losses: Mapping[Hashable, float]) -> None:
        """Told after each step: the mean loss of a token by subject."""
        for subject, loss in losses.items():
            before = self._losses.get(subject, loss)
            self._losses[subject] = SMOOTHING * before + (1 - SMOOTHING) * loss

    @property
    def has_met_all(self) -> bool:
        """Whether each subject was trained on."""
        return len(self._losses) == len(self._rows)

    @property
    def loss(self) -> float:
        """Mean over the subjects met, as last seen."""
        return sum(self._losses.values()) / len(self._losses)
