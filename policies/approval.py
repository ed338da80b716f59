"""Whether an operator's signed decision is accepted, and whether those behind a promotion still hold.

Every answer is a value, `Accepted` or `Refused`. The checks here always apply; the rules can only add a no.
Keeping approvals and counting them towards a quorum is left to the caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.conditions import (
    Check,
    State,
    binding_checks,
    candidate_checks,
    context,
    first_unmet,
    standing_checks,
    time_checks,
    yes_checks,
)
from policies.engine import PolicyError, PolicySet
from policies.operators import PAYLOAD_TYPE_OPERATOR, check_operator, countersign, introduce
from policies.refusal import EXIT_CODES, Refusal, Refused
from policies.statement import PAYLOAD_TYPE, Statement, authenticate, sign
from store.records import Decision, Operator

__all__ = [
    "EXIT_CODES",
    "PAYLOAD_TYPE",
    "PAYLOAD_TYPE_OPERATOR",
    "Accepted",
    "Refusal",
    "Refused",
    "State",
    "Statement",
    "authenticate",
    "check_operator",
    "countersign",
    "examine",
    "introduce",
    "sign",
    "standing",
    "still_holds",
]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A decision that counts."""

    statement: Statement


def examine(
    envelope: Mapping[str, Any], operators: Sequence[Operator], state: State, now: float, policy_set: PolicySet
) -> Accepted | Refused:
    statement = authenticate(envelope, operators)
    if isinstance(statement, Refused):
        return statement
    checks = [*time_checks(statement, now), *candidate_checks(statement, state)]
    if statement.decision is Decision.APPROVE:
        checks += [*binding_checks(statement, state, policy_set.id), *yes_checks(statement, state, operators)]
    refused = first_unmet(checks)
    if refused is None and statement.decision is Decision.APPROVE:
        refused = _forbidden(statement, checks, policy_set)
    return refused or Accepted(statement)


def standing(
    envelopes: Sequence[Mapping[str, Any]],
    operators: Sequence[Operator],
    state: State,
    now: float,
    policy_set: PolicySet,
) -> list[Statement]:
    """The yeses among recorded decisions that still count: signed, in time, and over all that is on record now."""
    found = [
        _standing(one, operators, candidate=state.candidate or "", champion=state.champion, at=now) for one in envelopes
    ]
    yes = [one for one in found if isinstance(one, Statement)]
    return [one for one in yes if first_unmet(binding_checks(one, state, policy_set.id)) is None]


def still_holds(
    envelopes: Sequence[Mapping[str, Any]],
    operators: Sequence[Operator],
    *,
    candidate: str,
    champion: str,
    at: float,
    required: int,
) -> Refused | None:
    """None when enough operators' approvals of this candidate over this champion were valid at that time."""
    if required < 1:
        raise PolicyError(f"at least one approval is always required, got {required}")
    names: set[str] = set()
    problems: list[Refused] = []
    for envelope in envelopes:
        statement = _standing(envelope, operators, candidate=candidate, champion=champion, at=at)
        if isinstance(statement, Refused):
            problems.append(statement)
        elif statement.operator in names:
            problems.append(Refused(Refusal.SAME_OPERATOR, f"{statement.operator} approved more than once"))
        else:
            names.add(statement.operator)
    if len(names) >= required:
        return None
    few = Refused(Refusal.TOO_FEW, f"{required} operators must have approved {candidate}, {len(names)} have")
    return problems[0] if problems else few


def _standing(
    envelope: Mapping[str, Any], operators: Sequence[Operator], *, candidate: str, champion: str, at: float
) -> Statement | Refused:
    statement = authenticate(envelope, operators)
    if isinstance(statement, Refused):
        return statement
    return first_unmet([*time_checks(statement, at), *standing_checks(statement, candidate, champion)]) or statement


def _forbidden(statement: Statement, checks: Sequence[Check], policy_set: PolicySet) -> Refused | None:
    ruling = policy_set.decide(
        "approve", ("Operator", statement.operator), ("Checkpoint", statement.candidate), context(checks)
    )
    return None if ruling.allowed else Refused(Refusal.FORBIDDEN, ruling.reason)
