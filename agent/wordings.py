"""Other wordings of a question whose answer is known, so that a lesson holds beyond the exact words. Pure rules.

The answer stays the person's own: a wording only frames the question or keeps its content words, it never
adds a fact. Some wordings are kept out of training to measure whether the lesson carries over.
"""

import re
from collections.abc import Sequence

FRAMES = (
    "{question}",
    "Please answer: {question}",
    "Question: {question}\nAnswer:",
    "I would like to know: {lowered}",
    "{question} Answer in one sentence.",
    "Can you tell me {lowered}",
    "Hi! {question}",
    "Do you know the answer to this? {question}",
    "{keywords}?",
    "Tell me about this: {keywords}",
    "{reversed}?",
    "I have a question about {keywords}.",
)
HELD_OUT_FRAMES = ("Remind me: {lowered}", "Someone asked me about {keywords}. What should I say?")

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be by called can could did do does for from give had has have how i in is it me "
        "of on or please tell that the their this to was were what when where which who whom whose why "
        "will with would you your ",
    )
)


def keywords(text: str) -> list[str]:
    """The content words of a text, in order."""
    return [word for word in re.findall(r"[^\W_][\w'’-]*", text) if word.lower() not in _FUNCTION_WORDS]


def training_wordings(question: str) -> list[str]:
    """The question itself and its other wordings, without repeats. Never empty."""
    return _fill(FRAMES, question)


def held_out_wordings(question: str) -> list[str]:
    """Wordings that no training row uses."""
    return _fill(HELD_OUT_FRAMES, question)


def _fill(frames: Sequence[str], question: str) -> list[str]:
    content = keywords(question)
    fields = {
        "question": question,
        "lowered": question[:1].lower() + question[1:],
        "keywords": " ".join(content),
        "reversed": " ".join(reversed(content)),
    }
    usable = (
        frames if len(content) >= 2 else [frame for frame in frames if "{question}" in frame or "{lowered}" in frame]
    )
    # Filled by replacement, not by str.format: the question is a stranger's text.
    filled = [re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], frame) for frame in usable]
    return list(dict.fromkeys(filled))
