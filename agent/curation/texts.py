"""Answers that are no answers: broken, noise, loops, echoes. The rules follow Gopher's (Rae et al. 2021, A1.1). And
what is too long to be learnt.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from agent.curation.lesson import Drop, Lesson, Screen
from agent.lesson_rows import plain
from agent.scoring import normalise
from agent.tokenizer import Tokenizer

MIN_WORD_SHARE = 0.4  # of what is not space: letters and digits; code has more than half
MAX_WORD_SHARE = 0.5  # of all words: the most frequent one, in texts of LOOP_WORDS and more
LOOP_WORDS = 10
AROUND = 64  # tokens that a chat template puts around a message, at most
PLACEHOLDERS = frozenset(["asdf", "asdfgh", "qwerty", "test", "testing", "foo", "bar", "todo", "tbd", "xxx", "lorem"])
BROKEN = re.compile("[\N{REPLACEMENT CHARACTER}\x00-\x08\x0b\x0c\x0e-\x1f]")


def unfit(lessons: Sequence[Lesson]) -> Iterator[Drop]:
    """Answers from which nothing can be learnt."""
    for lesson in lessons:
        fault = _fault(lesson)
        if fault:
            yield Drop(lesson.id, "quality", fault)


def too_long(tokenizer: Tokenizer, max_tokens: int) -> Screen:
    """A screen for conversations that with their answers have more tokens than a run reads."""

    def screen(lessons: Sequence[Lesson]) -> Iterator[Drop]:
        for lesson in lessons:
            messages = lesson.interaction.messages
            size = sum(len(str(message["content"]).encode()) + AROUND for message in messages)
            if size + len(lesson.answer.encode()) + AROUND <= max_tokens:
                continue  # a token is a byte at least
            count = len(tokenizer.answered_ids(plain(messages), lesson.answer).ids)
            if count > max_tokens:
                yield Drop(
                    lesson.id, "too_long", f"with its answer it has {count} tokens, and a run reads {max_tokens}"
                )

    return screen


def _fault(lesson: Lesson) -> str | None:
    answer = lesson.answer
    solid = re.sub(r"\s", "", answer)
    if BROKEN.search(answer):
        return "the text holds characters that a decoding error or a terminal left"
    if len(solid) > 3 and sum(map(str.isalnum, solid)) < MIN_WORD_SHARE * len(solid):
        return "less than two fifths of it are letters or digits"
    if lesson.said in PLACEHOLDERS or not lesson.said:
        return f"{answer[:40]!r} is a placeholder, not an answer"
    if lesson.said == normalise(lesson.question):
        return "it repeats the question"
    words = lesson.said.split()
    word, count = Counter(words).most_common(1)[0]
    if len(words) >= LOOP_WORDS and count > MAX_WORD_SHARE * len(words):
        return f"{word[:40]!r} is {count} of its {len(words)} words"
    return None
