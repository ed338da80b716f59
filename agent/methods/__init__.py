"""Learning methods, one file each: `train(job) -> Trained`. A recipe names the one to use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from agent.recipe import Recipe
from agent.survey import Survey
from agent.tokenizer import Tokenizer

Row = dict[str, Any]
Progress = Callable[..., None]  # progress(phase, step, total, **figures)


@dataclass(frozen=True, slots=True)
class Job:
    """All a method gets: the base, the rows, the recipe, where scratch files may go, whom to tell of progress, and who
    knows what the base does on everyday prompts.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    lessons: Sequence[Row]
    replay: Sequence[Row]
    recipe: Recipe
    scratch: str
    progress: Progress
    survey: Callable[[], Survey]


@dataclass(frozen=True, slots=True)
class Trained:
    """A PEFT model and what is worth knowing of its training."""

    model: Any
    figures: dict[str, float]


def method(name: str) -> Callable[[Job], Trained]:
    """The method of that name; ValueError lists those there are."""
    from agent.methods import sft

    methods = {"sft": sft.train}
    if name not in methods:
        raise ValueError(f"unknown learning method {name!r}; there are {', '.join(sorted(methods))}")
    return methods[name]
