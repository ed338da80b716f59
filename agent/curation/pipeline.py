"""The screens in their order: each sees what the ones before it kept, and a lesson is dropped once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.curation.contamination import contaminated
from agent.curation.language import foreign
from agent.curation.lesson import Drop, Lesson, Screen
from agent.curation.repeats import contradictions, duplicates, near_duplicates, said_again, superseded
from agent.curation.texts import unfit


@dataclass(frozen=True, slots=True)
class Curated:
    """What may be learnt, and what not with its reason. In the order they came."""

    kept: tuple[Lesson, ...]
    dropped: tuple[Drop, ...]


def screens(suites: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Screen, ...]:
    """The usual ones, against these suites. What a person said twice goes before what they took back, since they may
    return to what they said first; contradictions are looked for while everybody's word is there to be counted.
    """
    repeats: tuple[Screen, ...] = (said_again, superseded, contradictions, duplicates, near_duplicates)
    return (unfit, contaminated(suites), foreign, *repeats)


def curate(lessons: Sequence[Lesson], screens: Sequence[Screen]) -> Curated:
    """Every lesson is in `kept` or in `dropped`."""
    kept, dropped = list(lessons), list[Drop]()
    for screen in screens:
        found = {drop.lesson_id: drop for drop in screen(kept)}
        kept = [lesson for lesson in kept if lesson.id not in found]
        dropped += found.values()
    return Curated(tuple(kept), tuple(dropped))
