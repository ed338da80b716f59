"""Signed decisions: examine, record, and promote when enough operators have said yes."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from policies.approval import State, Statement, examine, standing
from policies.engine import PolicySet
from policies.envelope import read
from policies.operators import check_operator
from policies.refusal import Refusal, Refused
from service.rollout import Rollout
from store.database import StoreError
from store.records import Approval, Checkpoint, Decision, Operator, Promotion
from store.registry import Registry, ReplayedApproval, ServesAlready


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
    """Takes envelopes from operators, one at a time. Nobody waits for a load: who says no meanwhile stops it."""

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
        self._one_decision = threading.Lock()

    def decide(self, envelope: Mapping[str, Any]) -> Decided:
        """Record an approval or rejection. DecisionRefused names the rule; refusals are on the audit record too."""
        with self._one_decision:  # each is examined against what the one before left
            statement, yes = self._take(envelope)
        num_operators = len({one.operator for one in yes})
        if statement.decision is Decision.REJECT or num_operators < self._required:
            return Decided(statement, num_operators, None)
        promotion = self._rollout.promote(
            statement.candidate,
            over=statement.champion,
            actor=f"operator:{statement.operator}",
            reason=statement.reason,
            approval_ids=sorted({one.nonce for one in yes}),
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
        state = State(
            candidate=candidate_id if is_known else None,
            champion=champion,
            base=self._base_id,
            policy=verdict.policy_id if verdict else self._policy_set.id,
            evaluation=evaluation.id if evaluation else None,
            dataset=checkpoint.dataset_id if checkpoint else "",
            verdict=verdict.outcome if verdict else None,
            used_nonces=frozenset(approval.id for approval in approvals),
            signers=frozenset(),
            is_rejected=any(approval.decision is Decision.REJECT for approval in approvals),
        )
        return replace(state, signers=self._counted_signers(state))

    def add_operator(self, envelope: Mapping[str, Any]) -> Operator:
        """The first operator introduces themselves; later ones need a known operator's signature.
        PolicyError says why not.
        """
        with self._one_decision:  # there is one first operator
            operator = check_operator(envelope, self._registry.operators())
            self._registry.add_operator(operator)
        return operator

    def _take(self, envelope: Mapping[str, Any]) -> tuple[Statement, list[Statement]]:
        """The decision, examined and recorded, and every yes that now stands for its candidate."""
        candidate, now = _claimed_candidate(envelope), self._clock()
        state = self.state(candidate)
        result = examine(envelope, self._registry.operators(), state, now, self._policy_set)
        if isinstance(result, Refused):
            raise self._refused(result, candidate)
        try:
            self._record(result.statement, envelope, now)
        except ReplayedApproval as error:  # it was used for another candidate
            raise self._refused(Refused(Refusal.REPLAYED, str(error)), candidate) from error
        except ServesAlready as error:  # its promotion, under way as we looked, came first
            raise self._refused(Refused(Refusal.CHAMPION_MOVED, str(error)), candidate) from error
        return result.statement, self._standing(state, now)

    def _checkpoint(self, candidate_id: str) -> Checkpoint | None:
        """By its whole id: what is signed is never shortened, and this one is not even verified yet."""
        try:
            found = self._registry.checkpoint(candidate_id) if candidate_id else None
        except StoreError:  # a beginning that is too short, or that several share
            return None
        return found if found is not None and found.id == candidate_id else None

    def _counted_signers(self, state: State) -> frozenset[str]:
        """Whose yes is counted already. Once there are enough but no promotion came of it (the checkpoint did not load,
        the daemon died in between), the same people may sign again to try again."""
        yes = self._standing(state, self._clock())
        is_complete = len({one.operator for one in yes}) >= self._required
        return frozenset() if is_complete else frozenset(one.key_id for one in yes)

    def _standing(self, state: State, now: float) -> list[Statement]:
        """The yeses to this candidate that hold, by what was signed and never by what their rows say, and are unspent:
        an approval makes at most one promotion."""
        envelopes = [one.envelope for one in self._registry.approvals_of(state.candidate)] if state.candidate else []
        spent = {spent_id for promotion in self._registry.promotions() for spent_id in promotion.approval_ids}
        yes = standing(envelopes, self._registry.operators(), state, now, self._policy_set)
        return [one for one in yes if one.nonce not in spent]

    def _record(self, statement: Statement, envelope: Mapping[str, Any], now: float) -> None:
        self._registry.add_approval(
            Approval(
                id=statement.nonce,
                created_at=now,
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
