"""What asks a question of an evaluation suite: to train on it would make its figures worthless."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.curation.lesson import Drop, Lesson, Screen
from agent.scoring import normalise
from agent.wordings import keywords, stem


def contaminated(suites: Mapping[str, Sequence[Mapping[str, Any]]]) -> Screen:
    """A screen against these suites, whose items have a `question` each."""
    find = asked_in(suites)

    def screen(lessons: Sequence[Lesson]) -> Iterator[Drop]:
        for lesson in lessons:
            found = find(lesson.question)
            if found:
                yield Drop(lesson.id, "contamination", f"{found[0]!r} is a question of the suite {found[1]!r}")

    return screen


def asked_in(
    suites: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Callable[[str], tuple[str, str] | None]:
    """What finds the suites' question that a text asks, and the suite; None where it asks none of them."""
    questions = {normalise(item["question"]): name for name, items in suites.items() for item in items}
    gists = {_gist(question): (question, name) for question, name in questions.items() if len(_gist(question)) > 1}
    return lambda text: gists.get(_gist(text)) or _held(normalise(text), questions)


def _gist(question: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in keywords(question))


def _held(text: str, questions: Mapping[str, str]) -> tuple[str, str] | None:
    """A suite's question that stands in a longer one."""
    return next(((question, name) for question, name in questions.items() if question in text), None)
