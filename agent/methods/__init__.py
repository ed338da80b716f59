"""Learning methods, one file each: `train(job) -> Trained`. A recipe names the one to use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from agent.recipe import METHODS, Recipe
from agent.survey import Survey
from agent.tokenizer import Tokenizer

Row = dict[str, Any]
Progress = Callable[..., None]  # progress(phase, step, total, **figures)
NEEDED = {
    "lessons": {"messages", "answer", "source"},
    "replay": {"messages", "answer"},
    "pairs": {"messages", "chosen", "rejected"},
    "rated": {"messages", "answer", "is_good"},
}


@dataclass(frozen=True, slots=True)
class Job:
    """All a method gets: the base, the rows, the recipe, where scratch files may go, whom to tell of progress, and who
    knows what the base does on everyday prompts.

    `lessons` {messages, answer, source, perhaps given}; `replay` {messages, answer}; `pairs` {messages, chosen,
    rejected}; `rated` {messages, answer, is_good}. ValueError for a row that lacks one of these. `adapted`: the PEFT
    model of the method before, where one goes on with its adapter.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    lessons: Sequence[Row]
    replay: Sequence[Row]
    recipe: Recipe
    scratch: str
    progress: Progress
    survey: Callable[[], Survey]
    pairs: Sequence[Row] = ()
    rated: Sequence[Row] = ()
    adapted: Any | None = None

    def __post_init__(self) -> None:
        for kind, needed in NEEDED.items():
            for number, row in enumerate(getattr(self, kind)):
                if missing := needed - row.keys():
                    raise ValueError(f"row {number} of {kind} has no {' and no '.join(sorted(missing))}: {row}")


@dataclass(frozen=True, slots=True)
class Trained:
    """A PEFT model and what is worth knowing of its training."""

    model: Any
    figures: dict[str, float]


def method(name: str) -> Callable[[Job], Trained]:
    """The method of that name; ValueError lists those there are. Of a mix, each goes on with the adapter before."""
    from agent.methods import preference, sft

    methods = {"sft": sft.train, "preference": preference.train}
    if name not in METHODS:
        raise ValueError(f"unknown learning method {name!r}; there are {', '.join(METHODS)}")
    return partial(_in_turn, [methods[part] for part in name.split("+")])


def _in_turn(parts: Sequence[Callable[[Job], Trained]], job: Job) -> Trained:
    trained = parts[0](job)
    for part in parts[1:]:
        after = part(replace(job, adapted=trained.model))
        trained = Trained(after.model, trained.figures | after.figures)
    return trained
