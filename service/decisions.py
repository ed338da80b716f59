"""Signed decisions: examine, record, and promote when enough operators have said yes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.approval import State, Statement, examine
from policies.engine import PolicySet
from policies.envelope import read
from policies.operators import check_operator
from policies.refusal import Refused
from service.rollout import Rollout
from store.database import StoreError
from store.records import Approval, Checkpoint, Decision, Operator, Promotion
from store.registry import Registry


class DecisionRefused(RuntimeError):
    """A signed decision that was not accepted."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Decided:
    """An accepted decision, and the promotion if it was the last one needed."""

    statement: Statement
    num_approvals: int
    promotion: Promotion | None


class Decisions:
    """Takes envelopes from operators."""

    def __init__(
        self,
        *,
        registry: Registry,
        rollout: Rollout,
        policy_set: PolicySet,
        base_id: str,
        approvals_required: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._rollout = rollout
        self._policy_set = policy_set
        self._base_id = base_id
        self._required = approvals_required
        self._clock = clock

    def decide(self, envelope: Mapping[str, Any]) -> Decided:
        """Record an approval or rejection. DecisionRefused names the rule; refusals are on the audit record too."""
        candidate = _claimed_candidate(envelope)
        result = examine(envelope, self._registry.operators(), self.state(candidate), self._clock(), self._policy_set)
        if isinstance(result, Refused):
            raise self._refused(result, candidate)
        statement = result.statement
        self._record(statement, envelope)
        yes = self._standing_approvals(statement.candidate, statement.champion)
        num_operators = len({approval.operator for approval in yes})
        if statement.decision is Decision.REJECT or num_operators < self._required:
            return Decided(statement, num_operators, None)
        promotion = self._rollout.promote(
            statement.candidate,
            over=statement.champion,
            actor=f"operator:{statement.operator}",
            reason=statement.reason,
            approval_ids=[approval.id for approval in yes],
        )
        return Decided(statement, num_operators, promotion)

    def state(self, candidate_id: str) -> State:
        """What is true of a candidate now."""
        checkpoint = self._checkpoint(candidate_id)
        is_known = checkpoint is not None
        verdict = self._registry.verdict_of(candidate_id) if is_known else None
        evaluation = self._registry.evaluation_of(candidate_id) if is_known else None
        approvals = self._registry.approvals_of(candidate_id) if is_known else []
        champion = self._registry.champion(self._base_id)
        return State(
            candidate=candidate_id if is_known else None,
            champion=champion,
            base=self._base_id,
            policy=verdict.policy_id if verdict else self._policy_set.id,
            evaluation=evaluation.id if evaluation else None,
            dataset=checkpoint.dataset_id if checkpoint else "",
            verdict=verdict.outcome if verdict else None,
            used_nonces=frozenset(approval.id for approval in approvals),
            signers=self._counted_signers(candidate_id, champion) if is_known else frozenset(),
            is_rejected=any(approval.decision is Decision.REJECT for approval in approvals),
        )

    def add_operator(self, envelope: Mapping[str, Any]) -> Operator:
        """The first operator introduces themselves; later ones need a known operator's signature.
        PolicyError says why not.
        """
        operator = check_operator(envelope, self._registry.operators())
        self._registry.add_operator(operator)
        return operator

    def _checkpoint(self, candidate_id: str) -> Checkpoint | None:
        """By its whole id: what is signed is never shortened, and this one is not even verified yet."""
        try:
            found = self._registry.checkpoint(candidate_id) if candidate_id else None
        except StoreError:  # a beginning that is too short, or that several share
            return None
        return found if found is not None and found.id == candidate_id else None

    def _counted_signers(self, candidate_id: str, champion: str) -> frozenset[str]:
        """Whose yes is counted already. Once there are enough but no promotion came of it (the checkpoint did not load,
        the daemon died in between), the same people may sign again to try again."""
        yes = self._standing_approvals(candidate_id, champion)
        is_complete = len({approval.operator for approval in yes}) >= self._required
        return frozenset() if is_complete else frozenset(approval.key_id for approval in yes)

    def _standing_approvals(self, candidate_id: str, champion: str) -> list[Approval]:
        """Unspent, unexpired yeses to this candidate over this champion: an approval makes at most one promotion."""
        promotions = self._registry.promotions()
        spent = {spent_id for promotion in promotions for spent_id in promotion.approval_ids}
        return [
            approval
            for approval in self._registry.approvals_of(candidate_id)
            if approval.decision is Decision.APPROVE
            and approval.id not in spent
            and approval.expires_at > self._clock()
            and _statement_champion(approval) == champion
        ]

    def _record(self, statement: Statement, envelope: Mapping[str, Any]) -> None:
        self._registry.add_approval(
            Approval(
                id=statement.nonce,
                created_at=self._clock(),
                checkpoint_id=statement.candidate,
                decision=statement.decision,
                key_id=statement.key_id,
                operator=statement.operator,
                reason=statement.reason,
                expires_at=statement.expires_at,
                envelope=dict(envelope),
            )
        )

    def _refused(self, refused: Refused, candidate: str) -> DecisionRefused:
        body = {"candidate": candidate, "refusal": refused.refusal.value, "message": refused.message}
        self._registry.note("approval.refused", body, self._clock())
        return DecisionRefused(refused)


def _claimed_candidate(envelope: Mapping[str, Any]) -> str:
    """The candidate an envelope speaks of, before anything is verified: only to look its state up."""
    try:
        payload = read(envelope).payload
        return Statement.from_bytes(payload).candidate
    except ValueError:  # `examine` says what is wrong with it
        return ""


def _statement_champion(approval: Approval) -> str:
    return Statement.from_bytes(read(approval.envelope).payload).champion
