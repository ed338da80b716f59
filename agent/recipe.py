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
    alpha: int = 16
    learning_rate: float = 3e-3  # falls to zero over the steps: constant, the last steps forget at random
    lesson_batch: int = 6
    replay_batch: int = 6
    replay_weight: float = 4.0
    replay_is_text: bool = False  # hold to the words of replay rows, not to the base's distribution over them
    replay_tokens: int = 16  # the first words of an answer decide the rest
    passes: float = 4.4  # over the lessons
    min_steps: int = 24
    max_steps: int = 600
    warmup_steps: int = 4
    loss_target: float = 0.05  # smoothed; past it the model only gets surer, and forgets more
    max_length: int = 1024  # longer lessons are left out
    is_aimed: bool = True  # the adapter reads only the directions in which lessons stand out from replay rows
    aim_floor: float = 0.05  # of the mean energy: what a direction counts at least as used
    soften_floor: float = 0.1  # of the mean influence: what an output counts at least as deciding
    drift_weight: float = 100.0  # of the adapter's own KL, as the survey foretells it
    survey_lessons: int = 128  # lesson rows read to know what is special
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
            "soften_floor",
            "survey_lessons",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"recipe {name} must be positive, got {getattr(self, name)}")
        for name in ("replay_weight", "replay_batch", "drift_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"recipe {name} must not be negative, got {getattr(self, name)}")

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
