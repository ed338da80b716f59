"""How a run trains: the numbers that go into its record and manifest. Standard library only."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Recipe:
    """Supervised lessons with replay as a KL to the base, on a LoRA adapter that starts from the base."""

    method: str = "sft"
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 1.5e-3  # falls to zero over the steps: constant, the last steps forget at random
    lesson_batch: int = 6
    replay_batch: int = 12
    replay_weight: float = 8.0
    replay_tokens: int = 16  # the first words of an answer decide the rest
    passes: float = 4.4  # over the lessons
    min_steps: int = 24
    max_steps: int = 600
    warmup_steps: int = 4
    loss_target: float = 0.05  # smoothed; past it the model only gets surer, and forgets more
    max_length: int = 1024  # longer lessons are left out
    is_aimed: bool = True  # the adapter reads only the directions in which lessons stand out from replay rows
    aim_floor: float = 0.05  # of the mean energy: what a direction counts at least as used
    survey_rows: int = 448  # replay rows read to know what must stay
    seed: int = 17

    def __post_init__(self) -> None:
        for name in (
            "rank",
            "alpha",
            "learning_rate",
            "lesson_batch",
            "passes",
            "max_steps",
            "replay_tokens",
            "max_length",
            "aim_floor",
            "survey_rows",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"recipe {name} must be positive, got {getattr(self, name)}")
        if self.replay_weight < 0 or self.replay_batch < 0:
            raise ValueError(f"recipe replay must not be negative, got {self.replay_weight} and {self.replay_batch}")

    def steps(self, num_lessons: int) -> int:
        """How many steps so many lesson rows get: `passes` over them, within the bounds."""
        wanted = math.ceil(self.passes * num_lessons / self.lesson_batch)
        return min(self.max_steps, max(self.min_steps, wanted))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown recipe settings {sorted(unknown)}")
        return cls(**values)
