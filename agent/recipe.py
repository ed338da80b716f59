"""How a run trains: the numbers that go into its record and manifest. Standard library only."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

WORDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
METHODS = ("preference", "sft", "sft+preference")  # a mix goes in this order, on one adapter


@dataclass(frozen=True, slots=True)
class SftSettings:
    """Numbers of `sft`: supervised lessons with replay as a KL to the base, on an adapter that treads softly."""

    learning_rate: float = 2e-3  # falls to zero over the steps, and sooner past the target
    batch: int = 12  # lesson rows
    passes: float = 6.0  # over the lessons
    min_steps: int = 24
    max_steps: int = 600
    warmup_steps: int = 4
    loss_target: float = 0.025  # mean of the last steps; past it the model only gets surer, and forgets more
    cooldown: float = 0.2  # of the steps to the target: how many more, at a rate that falls to zero (`agent.cooling`)
    replay_batch: int = 4
    replay_weight: float = 1.0
    replay_is_text: bool = False  # hold to the words of replay rows, not to the base's distribution over them
    is_aimed: bool = True  # the adapter reads only the directions in which lessons stand out from replay rows
    aim_floor: float = 0.05  # of the mean energy: what a direction counts at least as used
    soften_floor: float = 0.1  # of the mean influence: what an output counts at least as deciding
    drift_weight: float = 50.0  # of the adapter's own KL, as the survey foretells it
    survey_lessons: int = 128  # lesson rows read to know what is special

    def __post_init__(self) -> None:
        _require_types("sft.", self)
        positive: tuple[str, ...] = ("learning_rate", "batch", "passes", "max_steps")
        positive += ("aim_floor", "soften_floor", "survey_lessons")
        _require("sft.", self, positive, is_positive=True)
        others = (
            "min_steps",
            "warmup_steps",
            "loss_target",
            "cooldown",
            "replay_batch",
            "replay_weight",
            "drift_weight",
        )
        _require("sft.", self, others, is_positive=False)

    def steps(self, num_rows: int) -> int:
        """How many steps so many rows get: `passes` over them, within the bounds."""
        return min(self.max_steps, max(self.min_steps, math.ceil(self.passes * num_rows / self.batch)))


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """Numbers of `preference`: DPO with a supervised term on pairs, KTO on thumbs, replay as a KL to the base."""

    beta: float = 0.5  # how little is moved for how sure a preference: at 0.1 the rows are learnt by heart
    sft_weight: float = 0.1  # of the loss on the chosen answers, so that they don't fall along with the rejected
    learning_rate: float = 3e-4
    batch: int = 8  # pairs, or twice as many thumbs
    passes: float = 1.5  # over the rows: what they have in common comes first, then what is in each
    min_steps: int = 8
    max_steps: int = 200
    warmup_steps: int = 2
    replay_batch: int = 6
    replay_weight: float = 8.0

    def __post_init__(self) -> None:
        _require_types("preference.", self)
        _require("preference.", self, ("beta", "learning_rate", "batch", "passes", "max_steps"), is_positive=True)
        others = ("sft_weight", "min_steps", "warmup_steps", "replay_batch", "replay_weight")
        _require("preference.", self, others, is_positive=False)

    def steps(self, num_rows: int, batch: int) -> int:
        """How many steps so many rows get: `passes` over them, within the bounds."""
        return min(self.max_steps, max(self.min_steps, math.ceil(self.passes * num_rows / batch)))


GROUPS = {"sft": SftSettings, "preference": PreferenceSettings}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which methods train a LoRA adapter that starts from the base, what they share, and each one's own numbers."""

    method: str = "sft"
    rank: int = 32  # about a direction for each thing that lessons tell apart
    alpha: int = 32
    max_length: int = 1024  # longer rows are left out
    replay_tokens: int = 16  # of an answer: the first words decide the rest
    seed: int = 17
    sft: SftSettings = field(default_factory=SftSettings)
    preference: PreferenceSettings = field(default_factory=PreferenceSettings)

    def __post_init__(self) -> None:
        _require_types("", self)
        if self.method not in METHODS:
            raise ValueError(f"unknown learning method {self.method!r}; there are {', '.join(METHODS)}")
        _require("", self, ("rank", "alpha", "max_length", "replay_tokens"), is_positive=True)

    @property
    def has_lessons(self) -> bool:
        """Whether it learns from corrections as supervised lessons."""
        return "sft" in self.method.split("+")

    @property
    def has_preferences(self) -> bool:
        """Whether it learns from what people prefer."""
        return "preference" in self.method.split("+")

    def changed(self, values: Mapping[str, Any]) -> "Recipe":
        """This recipe with these settings, of a group only those that are named. ValueError as of `from_json`."""
        now = self.to_json()
        groups = {name: {**now[name], **given} for name, given in values.items() if _is_group(name, given)}
        return Recipe.from_json({**now, **values, **groups})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe as `to_json` writes it; what is not named has its default. ValueError names what is unknown."""
        _require_known("", values, cls)
        groups: dict[str, Any] = {}
        for name, kind in GROUPS.items():
            given = values.get(name, {})
            if not isinstance(given, Mapping):
                raise ValueError(f"recipe {name} must be an object of its settings, got {given!r}")
            _require_known(f"{name}.", given, kind)
            groups[name] = kind(**given)
        return cls(**{**values, **groups})


def _is_group(name: str, given: object) -> bool:
    return name in GROUPS and isinstance(given, Mapping)


def _require(where: str, settings: Any, names: Iterable[str], *, is_positive: bool) -> None:
    for name in names:
        value = getattr(settings, name)
        if value < 0 or (is_positive and value == 0):
            raise ValueError(
                f"recipe {where}{name} must {'be positive' if is_positive else 'not be negative'}, got {value}"
            )


def _require_types(where: str, settings: Any) -> None:
    """Every plain setting is of its default's type; a whole number will do for any number."""
    for one in fields(settings):
        value, wanted = getattr(settings, one.name), type(one.default)
        if wanted not in WORDS:
            continue
        is_finite = not isinstance(value, float) or math.isfinite(value)
        is_number = wanted is float and type(value) is int
        if not is_finite or (type(value) is not wanted and not is_number):
            raise ValueError(f"recipe {where}{one.name} must be {WORDS[wanted]}, got {value!r}")


def _require_known(where: str, values: Mapping[str, Any], kind: Any) -> None:
    known = {one.name for one in fields(kind)}
    unknown = set(values) - known
    if unknown:
        raise ValueError(
            f"unknown recipe settings {sorted(where + str(name) for name in unknown)}; there are "
            f"{', '.join(where + name for name in sorted(known))}"
        )
