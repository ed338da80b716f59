"""Whether a person should be asked about an interaction. Scoring it is left to `agent`."""

import math
from dataclasses import dataclass
from typing import Any

from policies.engine import DAEMON, PolicySet, Ruling
from store.records import Arm

_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class AskFacts:
    """What is known of one interaction and of today's questions."""

    interaction_id: str
    arm: Arm  # how it was chosen
    score: float | None
    threshold: float
    asked_today: int
    daily_budget: int
    asked_person_today: int  # about answers to the same person
    person_budget: int
    is_asked: bool  # a label task for it exists, in whatever state
    is_complete: bool  # it ended by itself or at its token limit
    is_empty: bool  # nothing but white space was answered

    def context(self) -> dict[str, Any]:
        context: dict[str, Any] = {
            "asked_today": self.asked_today,
            "daily_budget": self.daily_budget,
            "asked_person_today": self.asked_person_today,
            "person_budget": self.person_budget,
            "arm": str(self.arm),
            "threshold_micro": round(self.threshold * _MICRO),
            "is_asked": self.is_asked,
            "is_complete": self.is_complete,
            "is_empty": self.is_empty,
        }
        if self.score is not None and math.isfinite(self.score):
            context["score_micro"] = round(self.score * _MICRO)
        return context


def should_ask(facts: AskFacts, policy_set: PolicySet) -> Ruling:
    return policy_set.decide("ask", DAEMON, ("Interaction", facts.interaction_id), facts.context())
