"""Rows in a language that is not at home here: a few strays teach nothing, and cost what was known."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from typing import Any

from agent.curation.lesson import Drop, Lesson

MIN_LETTERS = 40  # of question and answer; less cannot be told
MIN_ROWS = 20  # with fewer, nobody is a stray
HOME_SHARE = 0.1  # of the rows that can be told: such a language is at home
MAX_HOME = 0.01  # a stray is as likely as this at most to be in one of the languages at home


def foreign(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """Lessons that are hardly in any language that a tenth of them and more are in."""
    if len(lessons) < MIN_ROWS:
        return
    languages = {lesson.id: language_of(_text(lesson)) for lesson in lessons}
    told = Counter(language for language in languages.values() if language)
    if told.total() < MIN_ROWS:
        return
    home = {language for language, count in told.items() if count >= HOME_SHARE * told.total()}
    for lesson in lessons:
        language = languages[lesson.id]
        if language and language not in home and _share(_text(lesson), home) < MAX_HOME:
            yield Drop(
                lesson.id, "language", f"it is in {language!r}, as {told[language] / told.total():.1%} of the rows are"
            )


def language_of(text: str) -> str | None:
    """The likeliest one, as ISO 639-1 code; None where it cannot be told."""
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return None
    return str(_identifier().classify(text)[0])


def _share(text: str, languages: Collection[str]) -> float:
    """How likely the text is in one of these."""
    return sum(float(probability) for language, probability in _identifier().rank(text) if language in languages)


def _text(lesson: Lesson) -> str:
    return f"{lesson.question} {lesson.answer}"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
