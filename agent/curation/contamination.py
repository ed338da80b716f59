"""Lessons that hold a question of an evaluation suite: to learn them would make its figures worthless."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.curation.lesson import Drop, Lesson, Screen
from agent.scoring import normalise
from agent.wordings import keywords, stem


def contaminated(suites: Mapping[str, Sequence[Mapping[str, Any]]]) -> Screen:
    """A screen against these suites, whose items have a `question` each."""
    questions = {normalise(item["question"]): name for name, items in suites.items() for item in items}
    gists = {_gist(question): (question, name) for question, name in questions.items() if len(_gist(question)) > 1}

    def screen(lessons: Sequence[Lesson]) -> Iterator[Drop]:
        for lesson in lessons:
            found = gists.get(_gist(lesson.question)) or _held(normalise(lesson.question), questions)
            if found:
                yield Drop(lesson.id, "contamination", f"{found[0]!r} is a question of the suite {found[1]!r}")

    return screen


def _gist(question: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in keywords(question))


def _held(text: str, questions: Mapping[str, str]) -> tuple[str, str] | None:
    """A suite's question that stands in a longer one."""
    return next(((question, name) for question, name in questions.items() if question in text), None)
