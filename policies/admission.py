"""Whether a row may be trained on: what people said, or the model's own. Reading and counting them is the caller's."""

from dataclasses import dataclass
from typing import Any

from policies.content import Kind, findings
from policies.engine import DAEMON, PolicySet, Ruling
from store.records import Feedback, Interaction

DEFAULT_MAX_LENGTH = 8_000  # characters
DEFAULT_PRINCIPAL_CAP = 200  # rows of one person in one run
DEFAULT_MAX_HELD = 512  # tokens of a prompt: what is held costs memory in every step


@dataclass(frozen=True, slots=True)
class LearnFacts:
    """One person's word on one interaction, all that would be learnt with it, and how much of theirs the run already
    holds.
    """

    feedback: Feedback
    texts: tuple[str, ...]  # of the conversation; the correction is looked at in any case
    num_taken: int  # rows of this person already taken into this run
    max_length: int = DEFAULT_MAX_LENGTH
    principal_cap: int = DEFAULT_PRINCIPAL_CAP

    def context(self) -> dict[str, Any]:
        kinds = {rule.kind for rule in findings((*self.texts, self.feedback.correction or ""))}
        context: dict[str, Any] = {
            "holds_secret": Kind.SECRET in kinds,
            "holds_personal_data": Kind.PERSONAL in kinds,
            "is_excluded": self.feedback.is_excluded,
            "max_length": self.max_length,
            "num_taken": self.num_taken,
            "principal_cap": self.principal_cap,
        }
        if self.feedback.correction is not None:
            context["correction_length"] = len(self.feedback.correction.strip())
        return context


def may_learn(facts: LearnFacts, policy_set: PolicySet) -> Ruling:
    principal = ("Person", facts.feedback.principal)
    return policy_set.decide("learn", principal, ("Feedback", facts.feedback.id), facts.context())


@dataclass(frozen=True, slots=True)
class PreferFacts:
    """One person's judgement of one or two answers, and how many of theirs the run already holds."""

    id: str
    principal: str
    texts: tuple[str, ...]  # of the conversation
    answers: tuple[str, ...]  # the one judged, or the better and the other
    is_same: bool
    is_complete: bool  # every answer of the model ended by itself
    is_excluded: bool
    num_taken: int
    max_length: int = DEFAULT_MAX_LENGTH
    principal_cap: int = DEFAULT_PRINCIPAL_CAP

    def context(self) -> dict[str, Any]:
        kinds = {rule.kind for rule in findings((*self.texts, *self.answers))}
        lengths = [len(answer.strip()) for answer in self.answers]
        return {
            "holds_secret": Kind.SECRET in kinds,
            "holds_personal_data": Kind.PERSONAL in kinds,
            "is_excluded": self.is_excluded,
            "is_complete": self.is_complete,
            "is_same": self.is_same,
            "shortest": min(lengths, default=0),
            "longest": max(lengths, default=0),
            "max_length": self.max_length,
            "num_taken": self.num_taken,
            "principal_cap": self.principal_cap,
        }


def may_prefer(facts: PreferFacts, policy_set: PolicySet) -> Ruling:
    """Whether a judgement may be learnt from."""
    return policy_set.decide("prefer", ("Person", facts.principal), ("Feedback", facts.id), facts.context())


def may_hold(interaction: Interaction, policy_set: PolicySet, max_tokens: int = DEFAULT_MAX_HELD) -> Ruling:
    """Whether the model may be held to this answer of its own; people's words stand in it too."""
    texts = (*(str(message["content"]) for message in interaction.messages), interaction.reply)
    kinds = {rule.kind for rule in findings(texts)}
    context = {
        "holds_secret": Kind.SECRET in kinds,
        "holds_personal_data": Kind.PERSONAL in kinds,
        "num_tokens": interaction.prompt_tokens,
        "max_tokens": max_tokens,
    }
    return policy_set.decide("hold", DAEMON, ("Interaction", interaction.id), context)
