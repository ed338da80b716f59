"""The conditions a signed decision must meet, each with the refusal it leads to and what to tell the person then.

They are evaluated here and weighed in `approval`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policies.refusal import Refusal, Refused
from policies.statement import Statement
from store.records import Decision, Operator, Outcome

MAX_LIFETIME_SECONDS = 30 * 24 * 3600.0
CLOCK_SKEW_SECONDS = 60.0  # an operator's own machine may run a little ahead of the daemon's


@dataclass(frozen=True, slots=True)
class State:
    """What is true of the candidate now, as the ledger has it."""

    candidate: str | None  # None when there is no such candidate
    champion: str
    base: str
    policy: str
    evaluation: str | None
    dataset: str
    verdict: Outcome | None
    used_nonces: frozenset[str]
    signers: frozenset[str]  # key ids whose yes to this candidate is already counted
    is_rejected: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One condition: the refusal it leads to when it isn't met, and what to tell the person then."""

    refusal: Refusal
    is_met: bool
    message: str


def time_checks(statement: Statement, now: float) -> Iterable[Check]:
    lifetime = statement.expires_at - statement.issued_at
    yield Check(
        Refusal.OVERLONG,
        lifetime <= MAX_LIFETIME_SECONDS,
        f"valid for {lifetime / 86400:.1f} days, at most {MAX_LIFETIME_SECONDS / 86400:.0f} are allowed",
    )
    yield Check(
        Refusal.NOT_YET_VALID,
        statement.issued_at <= now + CLOCK_SKEW_SECONDS,
        f"issued {statement.issued_at - now:.0f} seconds in the future; check both clocks",
    )
    yield Check(
        Refusal.EXPIRED,
        now < statement.expires_at,
        f"expired {now - statement.expires_at:.0f} seconds ago; look at the candidate again and sign anew",
    )


def candidate_checks(statement: Statement, state: State) -> Iterable[Check]:
    yield Check(
        Refusal.UNKNOWN_CANDIDATE,
        state.candidate is not None and statement.candidate == state.candidate,
        f"there is no candidate {statement.candidate}" + (f" here, only {state.candidate}" if state.candidate else ""),
    )
    yield Check(Refusal.REPLAYED, statement.nonce not in state.used_nonces, f"{statement.nonce} was used before")
    yield Check(Refusal.REJECTED, not state.is_rejected, f"an operator rejected {statement.candidate}")
    yield Check(
        Refusal.CHAMPION_MOVED,
        statement.candidate != state.champion,
        f"{statement.candidate} serves already; first take it back: honed rollback --reason …",
    )


def binding_checks(statement: Statement, state: State, policy_id: str) -> Iterable[Check]:
    again = "look at the candidate again and sign anew"
    yield champion_check(statement, state.champion)
    yield Check(
        Refusal.CHAMPION_MOVED,
        statement.base == state.base,
        f"it was signed over the base {statement.base}, the base is {state.base}; {again}",
    )
    yield Check(
        Refusal.POLICY_MOVED,
        statement.policy == state.policy == policy_id,
        f"it was signed under policy set {statement.policy} and judged under {state.policy}, "
        f"in force is {policy_id}; {again}",
    )
    yield Check(
        Refusal.EVALUATION_MOVED,
        (statement.evaluation, statement.dataset) == (state.evaluation, state.dataset),
        f"it was signed on evaluation {statement.evaluation} and data {statement.dataset}, "
        f"on record are {state.evaluation} and {state.dataset}; {again}",
    )


def champion_check(statement: Statement, champion: str) -> Check:
    return Check(
        Refusal.CHAMPION_MOVED,
        statement.champion == champion,
        f"it was signed when {statement.champion} was champion, which is {champion}; look again and sign anew",
    )


def yes_checks(statement: Statement, state: State, operators: Sequence[Operator]) -> Iterable[Check]:
    # One person with two keys is one person.
    counted = {one.name for one in operators if one.key_id in state.signers}
    is_new = statement.key_id not in state.signers and statement.operator not in counted
    yield Check(Refusal.SAME_OPERATOR, is_new, f"{statement.operator} already approved {statement.candidate}")
    yield Check(Refusal.VERDICT_FAIL, state.verdict is not Outcome.FAIL, "the verdict on its evaluation is fail")
    yield Check(
        Refusal.VERDICT_INCONCLUSIVE,
        state.verdict is Outcome.PASS,
        f"the verdict on its evaluation must be pass, it is {state.verdict or 'missing'}",
    )


def standing_checks(statement: Statement, candidate: str, champion: str) -> Iterable[Check]:
    yield Check(
        Refusal.UNKNOWN_CANDIDATE,
        statement.candidate == candidate,
        f"it approves {statement.candidate}, not {candidate}",
    )
    yield Check(
        Refusal.REJECTED,
        statement.decision is Decision.APPROVE,
        f"{statement.operator} rejected {candidate}",
    )
    yield champion_check(statement, champion)


def first_unmet(checks: Iterable[Check]) -> Refused | None:
    unmet = next((check for check in checks if not check.is_met), None)
    return None if unmet is None else Refused(unmet.refusal, unmet.message)


def context(checks: Sequence[Check]) -> dict[str, bool]:
    unmet = {check.refusal for check in checks if not check.is_met}
    return {
        "is_signed": True,  # only a verified statement comes this far
        "is_in_time": unmet.isdisjoint({Refusal.OVERLONG, Refusal.NOT_YET_VALID, Refusal.EXPIRED}),
        "is_known_candidate": Refusal.UNKNOWN_CANDIDATE not in unmet,
        "is_fresh": Refusal.REPLAYED not in unmet,
        "is_rejected": Refusal.REJECTED in unmet,
        "is_champion_same": Refusal.CHAMPION_MOVED not in unmet,
        "is_policy_same": Refusal.POLICY_MOVED not in unmet,
        "is_evaluation_same": Refusal.EVALUATION_MOVED not in unmet,
        "is_verdict_pass": unmet.isdisjoint({Refusal.VERDICT_FAIL, Refusal.VERDICT_INCONCLUSIVE}),
        "is_new_signer": Refusal.SAME_OPERATOR not in unmet,
    }
