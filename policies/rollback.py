"""Whether the champion may be put back. No measurement and no quorum stands in the way of that."""

from dataclasses import dataclass
from typing import Any

from policies.engine import PolicySet, Ruling, principal_of


@dataclass(frozen=True, slots=True)
class RollbackFacts:
    """Who wants to go back, where to, and why."""

    actor: str  # "operator:NAME", or what in the daemon asked for it
    champion: str
    target: str | None  # a checkpoint that served before, or the base; None when there is none
    reason: str

    def context(self) -> dict[str, Any]:
        return {
            "has_target": bool(self.target),
            "is_target_current": self.target == self.champion,
            "has_reason": bool(self.reason.strip()),
        }


def may_rollback(facts: RollbackFacts, policy_set: PolicySet) -> Ruling:
    resource = ("Checkpoint", facts.target or "")
    return policy_set.decide("rollback", principal_of(facts.actor), resource, facts.context())
