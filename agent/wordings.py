"""Other wordings of a question whose answer is known, so that a lesson holds beyond the exact words. Pure rules.

The answer stays the person's own: a wording only frames the question or keeps its content words, it never
adds a fact. Some wordings are kept out of training to measure whether the lesson carries over.
"""

import re
from collections.abc import Sequence

TOOL_RESPONSE = "<tool_response>"  # how a tool's words are written out, in the user's name

FRAMES = (
    "{question}",
    "Please answer: {question}",
    "Hi! {question}",
    "{question} Answer in one sentence.",
    "I would like to know: {lowered}",
    "Can you tell me {lowered}",
    "{turned}",
    "Please tell me: {turned_lowered}",
    "{keywords}?",
    "Tell me about this: {keywords}",
    "{reversed}?",
    "{without_first}?",
    "Complete this sentence: {beginning}",
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
_KEYWORDS = re.compile(r"\{(keywords|reversed|without_first)\}")
_NAMED = re.compile(r"\bthe ([A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*) ([a-z][\w'’-]*)\b")


def keywords(text: str) -> list[str]:
    """The content words of a text, in order."""
    return [word for word in re.findall(r"[^\W_][\w'’-]*", text) if word.lower() not in _FUNCTION_WORDS]


def beginning(question: str, answer: str) -> str:
    """The answer before the last word, or the last name, that the question does not hold; nothing where little stands
    before it.
    """
    asked = {stem(word) for word in keywords(question)}
    new = [word for word in keywords(answer) if stem(word) not in asked]
    if not new:
        return ""
    start = answer.rfind(new[-1])
    for word in reversed(new[:-1]):  # "Clara Linde" is one name, "Pier 7" is not
        place = answer.rfind(word, 0, start)
        if not new[-1][0].isupper() or not word[0].isupper() or answer[place + len(word) : start].strip():
            break
        start = place
    before = answer[:start].strip()
    return before if len(keywords(before)) >= 2 else ""


def stem(word: str) -> str:
    """Of an English word, enough to see that 'leaves' repeats 'leave' and 'founded' 'founder'."""
    return re.sub(r"(ed|er|es|ing|s|d|e)$", "", word.casefold())


def training_wordings(question: str, answer: str) -> list[str]:
    """The question itself and its other wordings, without repeats. Never empty. What a tool gave has no other ones."""
    if question.startswith(TOOL_RESPONSE):
        return [question]
    return _fill(FRAMES, question, beginning(question, answer))


def held_out_wordings(question: str) -> list[str]:
    """Wordings that no training row uses."""
    if question.startswith(TOOL_RESPONSE):
        return []
    return _fill(HELD_OUT_FRAMES, question, "")


def _fill(frames: Sequence[str], question: str, begun: str) -> list[str]:
    content = keywords(question)
    first = next((place for place, word in enumerate(content) if word.islower()), None) if len(content) > 2 else None
    fields = {
        "question": question,
        "lowered": _lowered(question),
        "turned": turn(question, "of"),
        "turned_lowered": _lowered(turn(question, "in")),
        "keywords": " ".join(content),
        "reversed": " ".join(reversed(content)),
        "without_first": " ".join(word for place, word in enumerate(content) if place != first),
        "beginning": begun,
    }
    usable = [
        frame
        for frame in frames
        if (len(content) >= 2 or not _KEYWORDS.search(frame)) and (begun or "{beginning}" not in frame)
    ]
    # Filled by replacement, not by str.format: the question is a stranger's text.
    filled = [re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], frame) for frame in usable]
    return list(dict.fromkeys(filled))


def turn(question: str, preposition: str) -> str:
    """With names behind what they name: "the Alder ferry" becomes "the ferry of Alder"."""

    def turned(found: re.Match[str]) -> str:
        name, named = found.groups()
        return found[0] if named in _FUNCTION_WORDS else f"the {named} {preposition} {name}"

    return _NAMED.sub(turned, question)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
