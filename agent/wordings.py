"""Other wordings of a question whose answer is known, so that a lesson holds beyond the exact words. Pure rules.

The answer stays the person's own: a wording only frames the question or keeps its content words, it never
adds a fact. Some wordings are kept out of training to measure whether the lesson carries over.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

TOOL_RESPONSE = "<tool_response>"  # how a tool's words are written out, in the user's name

# Of each group a question gets some, others than the next question: what all lessons were asked in would be learnt too.
AS_ASKED = (
    "Please answer: {question}",
    "Hi! {question}",
    "{question} Answer in one sentence.",
    "One more thing. {question}",
    "{question} Thanks.",
    "Quick question: {lowered}",
)
IN_A_SENTENCE = (
    "I would like to know: {lowered}",
    "Can you tell me {lowered}",
    "Do you know {lowered}",
    "I forgot {lowered}",
    "A friend asks: {lowered}",
    "Tell me {lowered}",
    "I need to know {lowered}",
)
BY_KEYWORDS = (
    "{keywords}?",
    "Tell me about this: {keywords}",
    "{reversed}?",
    "{without_first}?",
    "Which {kind} goes with {keywords}?",
    "I need the {kind}: {keywords}",
    "What is the {kind}? {keywords}",
    "How about {keywords}?",
    "What can you say of {keywords}?",
    "Which {kind}: {without_first}?",
    "From which {kind}, {reversed}?",
    "Do you have the {kind} for {without_first}?",
    "{keywords}. Who or what is it?",
)
CHOSEN = ((AS_ASKED, 2), (IN_A_SENTENCE, 2), (BY_KEYWORDS, 6))
BEGUN = "Complete this sentence: {beginning}"
HELD_OUT_FRAMES = ("Remind me: {lowered}", "Someone asked me about {keywords}. What should I say?")

_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are at be by called can could did do does for from give had has have how i in is it me "
        "of on or please tell that the their this to was were what when where which who whom whose why "
        "will with would you your ",
    )
)
WHOLE = r"(?<![^\W_]){}(?![^\W_])"  # a word that is no part of another; as `keywords` has it, "_" parts words
_FIELD = re.compile(r"\{(\w+)\}")


def keywords(text: str) -> list[str]:
    """The content words of a text, in order."""
    return [word for word in re.findall(r"[^\W_][\w'’-]*", text) if word.lower() not in _FUNCTION_WORDS]


def beginning(question: str, answer: str) -> str:
    """The answer before the last word, or the last name, that the question does not hold; nothing where little stands
    before it.
    """
    new = _new_words(question, answer)
    if not new:
        return ""
    start = _last(new[-1], answer)
    if start < 0:
        return ""
    for word in reversed(new[:-1]):  # "Clara Linde" is one name, "Pier 7" is not
        place = _last(word, answer[:start])
        if place < 0 or not new[-1][0].isupper() or not word[0].isupper() or answer[place + len(word) : start].strip():
            break
        start = place
    before = answer[:start].strip()
    gives_away = _last(new[-1], before) >= 0
    return before if len(keywords(before)) >= 2 and not gives_away else ""


def _last(word: str, text: str) -> int:
    """Where a whole word stands last; -1 when it does not."""
    found = list(re.finditer(WHOLE.format(re.escape(word)), text))
    return found[-1].start() if found else -1


def stem(word: str) -> str:
    """Of an English word, enough to see that 'leaves' repeats 'leave' and 'founded' 'founder'."""
    return re.sub(r"(ed|er|es|ing|s|d|e)$", "", word.casefold())


def kind(question: str, answer: str) -> str:
    """What the answer is: the noun before a number ("Pier 7"), or else a number, a name, a word."""
    new = _new_words(question, answer)
    if not new:
        return "answer"
    if new[-1][0].isdigit():
        is_named = len(new) > 1 and re.search(rf"{re.escape(new[-2])}\W+{re.escape(new[-1])}", answer)
        return new[-2].lower() if is_named else "number"
    return "name" if new[-1][0].isupper() else "word"


def training_wordings(question: str, answer: str) -> list[str]:
    """The question itself and its other wordings, without repeats. Never empty. What a tool gave has no other ones."""
    if question.startswith(TOOL_RESPONSE):
        return [question]
    fields = _fields(question, answer)
    chosen = [frame for frames, count in CHOSEN for frame in _some(_usable(frames, fields), count, question)]
    return _fill(["{question}", *chosen, *_usable([BEGUN], fields)], fields)


def held_out_wordings(question: str) -> list[str]:
    """Wordings that no training row uses."""
    fields = _fields(question, "") | {"lowered": _lowered(question)}
    return [] if question.startswith(TOOL_RESPONSE) else _fill(_usable(HELD_OUT_FRAMES, fields), fields)


def _fields(question: str, answer: str) -> dict[str, str]:
    """What frames are filled with; empty where the question has no such thing."""
    content = keywords(question)
    asks = question.rstrip().endswith("?")  # "I forgot" goes before a question, not before an order
    is_long = len(content) >= 2
    return {
        "question": question,
        "lowered": _lowered(question) if asks else "",
        "keywords": " ".join(content) if is_long else "",
        "reversed": " ".join(reversed(content)) if is_long else "",
        "without_first": " ".join(_without_first(question, content)),
        "kind": kind(question, answer),
        "beginning": beginning(question, answer),
    }


def _without_first(question: str, content: Sequence[str]) -> list[str]:
    """Its content words but the first plain one; nothing where there is no name to say what it is about."""
    names = [word for word in content if word[0].isupper() and not question.startswith(word)]
    first = next((place for place, word in enumerate(content) if word.islower()), None)
    if not names or first is None or len(content) < 3:
        return []
    return [word for place, word in enumerate(content) if place != first]


def _lowered(question: str) -> str:
    return question[:1].lower() + question[1:]


def _usable(frames: Sequence[str], fields: Mapping[str, str]) -> list[str]:
    return [frame for frame in frames if all(fields[name] for name in _FIELD.findall(frame))]


def _some(frames: Sequence[str], count: int, question: str) -> list[str]:
    """The same for the same question, in every run."""
    return sorted(frames, key=lambda frame: hashlib.sha256(f"{frame}{question}".encode()).digest())[:count]


def _fill(frames: Sequence[str], fields: Mapping[str, str]) -> list[str]:
    """By replacement, not by str.format: the question is a stranger's text."""
    return list(dict.fromkeys(_FIELD.sub(lambda match: fields[match[1]], frame) for frame in frames))


def _new_words(question: str, answer: str) -> list[str]:
    """The content words of an answer that its question does not hold."""
    asked = {stem(word) for word in keywords(question)}
    return [word for word in keywords(answer) if stem(word) not in asked]
