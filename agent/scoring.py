"""Is an answer right? Answer keys, strict and lenient. Pure; knows nothing of where answers come from.

Lenient: the words that carry the answer are all there. Strict: the answer is the expected one and nothing else. The
two are reported side by side, because much of a first gain is format and not knowledge.
"""

import re
import unicodedata
from collections.abc import Sequence

from agent.wordings import WHOLE, keywords, stem

LONG_KEY = 12  # words: a paragraph need not come back to the letter


def normalise(text: str) -> str:
    """Case, accents' encoding, spaces and final punctuation do not make an answer wrong."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(" \t\n.!?\"'“”’")


def answer_key(question: str, answer: str) -> tuple[str, ...]:
    """The words of `answer` that `question` does not already hold; all its content words if none is new."""
    asked = {stem(word) for word in keywords(normalise(question))}
    said = keywords(normalise(answer)) or [normalise(answer)]
    new = [word for word in said if stem(word) not in asked]
    return tuple(dict.fromkeys(normalise(word) for word in (new or said)))


def contains(answer: str, words: Sequence[str]) -> bool:
    """Whether the key words stand in the answer as whole words: all of up to LONG_KEY, nine in ten of more."""
    text = normalise(answer)
    missing = sum(re.search(WHOLE.format(re.escape(word)), text) is None for word in words)
    return bool(words) and missing <= (len(words) // 10 if len(words) > LONG_KEY else 0)


def is_right(answer: str, keys: Sequence[Sequence[str]]) -> bool:
    """Lenient: any of the alternative keys is contained whole."""
    return any(contains(answer, key) for key in keys)


def is_exact(answer: str, expected: str) -> bool:
    """Strict: the same text after normalisation."""
    return normalise(answer) == normalise(expected)
