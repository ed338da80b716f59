"""A person's word on an answer, as the screens see it; and what a screen says of one it drops."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from agent.scoring import answer_key, normalise
from agent.wordings import keywords, stem
from store.records import Feedback, Interaction

DENIALS = ("no", "not", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor", "cannot", "without")


@dataclass(frozen=True)
class Lesson:
    """A correction and what it corrects. Its id is the feedback's."""

    interaction: Interaction
    feedback: Feedback

    @property
    def id(self) -> str:
        return self.feedback.id

    @property
    def principal(self) -> str:
        return self.feedback.principal

    @property
    def question(self) -> str:
        return self.interaction.question

    @property
    def answer(self) -> str:
        return self.feedback.correction or ""

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The whole conversation, normalised."""
        return tuple(f"{m['role']}:{normalise(str(m['content']))}" for m in self.interaction.messages)

    @cached_property
    def gist(self) -> tuple[str, ...]:
        """The conversation with its last question as its content words: other words for the same question share it.
        A question of fewer than three such words stays as it is: too little of it would be compared.
        """
        words = [stem(word) for word in keywords(self.question)]
        return (*self.asked[:-1], "", *words) if len(words) > 2 else self.asked

    @cached_property
    def said(self) -> str:
        """The answer, normalised."""
        return normalise(self.answer)

    @cached_property
    def key(self) -> frozenset[str]:
        """The words that carry the answer."""
        return frozenset(answer_key(self.question, self.answer))

    @cached_property
    def is_denial(self) -> bool:
        """Whether the words that carry the answer deny something: that is no detail."""
        return any(word in DENIALS or word.endswith(("n't", "n’t")) for word in self.key)

    def agrees_with(self, other: "Lesson") -> bool:
        """Whether one answer says what the other says, perhaps in fewer words."""
        is_part = self.key <= other.key or other.key <= self.key
        return self.said == other.said or (is_part and self.is_denial == other.is_denial)


@dataclass(frozen=True)
class Judgement(Lesson):
    """A person's word on the model's own text: it is better than the `rival`, or without one, good or bad.

    Of the better of two, `interaction` is the one picked, `other_id` the other's, and the feedback stands for the
    comparison; of a correction, the text is the person's.
    """

    text: str = ""
    rival: str | None = None
    is_good: bool = True
    other_id: str | None = None

    @property
    def answer(self) -> str:
        return self.text

    @property
    def is_thumb(self) -> bool:
        return self.rival is None

    @cached_property
    def subject(self) -> tuple[object, ...]:
        """What was judged, whichever way: the conversation and the one or two texts, normalised."""
        return (self.asked, frozenset(normalise(text) for text in (self.text, self.rival) if text is not None))


@dataclass(frozen=True, slots=True)
class Drop:
    """A lesson that is not learnt: by which rule, and why, for the person who wonders."""

    lesson_id: str
    rule: str
    reason: str


Screen = Callable[[Sequence[Lesson]], Iterator[Drop]]
