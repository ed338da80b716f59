"""The ledger: checkpoints, evaluations, verdicts, operators, approvals, promotions, each with its audit entry.

It keeps what was decided; whether it may be decided so is `policies`' to say.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from store import witness
from store.audit import AuditChain
from store.connection import Connection
from store.database import Database, StoreError
from store.records import (
    Approval,
    AuditEntry,
    Checkpoint,
    Decision,
    Evaluation,
    Json,
    Operator,
    Promotion,
    PromotionKind,
    Verdict,
)
from store.rows import fetch, fetch_by_prefix, fetch_one, from_row, to_row

R = TypeVar("R", Checkpoint, Evaluation, Verdict, Operator, Approval, Promotion)


class ReplayedApproval(StoreError):
    """An approval with this nonce was accepted before."""


class Overtaken(StoreError):
    """What was decided meanwhile stands against it; the message says what."""


class ChampionMoved(Overtaken):
    """Another promotion came first."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the champion is {found}, not {expected} any more; look at it and decide again")
        self.expected = expected
        self.found = found


class CheckpointRejected(Overtaken):
    """An operator said no to it."""


class ApprovalSpent(Overtaken):
    """One of these approvals made a promotion before."""


class ServesAlready(Overtaken):
    """A rejection of the champion: only a rollback takes that back."""


class Registry:
    def __init__(self, db: Database, audit: AuditChain) -> None:
        self._db = db
        self._audit = audit

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        body = {
            "checkpoint": checkpoint.id,
            "run": checkpoint.run_id,
            "base": checkpoint.base_id,
            "parent": checkpoint.parent_id,
            "dataset": checkpoint.dataset_id,
        }
        self._add("checkpoints", checkpoint, "checkpoint.registered", body)

    def checkpoint(self, id: str) -> Checkpoint | None:  # noqa: A002
        """By its id or a beginning of it that no other checkpoint shares."""
        with self._db.read() as conn:
            row = fetch_by_prefix(conn, "checkpoints", id)
        return from_row(Checkpoint, row) if row else None

    def checkpoints(self) -> list[Checkpoint]:
        """Newest first."""
        return self._select(Checkpoint, "SELECT * FROM checkpoints ORDER BY seq DESC")

    def candidates(self) -> list[Checkpoint]:
        """Judged, never promoted, not rejected; newest first."""
        return self._select(
            Checkpoint,
            """SELECT * FROM checkpoints AS c WHERE EXISTS (SELECT 1 FROM verdicts WHERE checkpoint_id = c.id)
               AND NOT EXISTS (SELECT 1 FROM promotions WHERE checkpoint_id = c.id)
               AND NOT EXISTS (SELECT 1 FROM approvals WHERE checkpoint_id = c.id AND decision = 'reject')
               ORDER BY seq DESC""",
        )

    def add_evaluation(self, evaluation: Evaluation) -> None:
        body = {
            "evaluation": evaluation.id,
            "checkpoint": evaluation.checkpoint_id,
            "champion": evaluation.champion_id,
            "base": evaluation.base_id,
        }
        self._add("evaluations", evaluation, "evaluation.recorded", body)

    def evaluation(self, id: str) -> Evaluation | None:  # noqa: A002
        return self._one(Evaluation, "SELECT * FROM evaluations WHERE id = ?", id)

    def evaluation_of(self, checkpoint_id: str) -> Evaluation | None:
        sql = "SELECT * FROM evaluations WHERE checkpoint_id = ? ORDER BY seq DESC LIMIT 1"
        return self._one(Evaluation, sql, checkpoint_id)

    def add_verdict(self, verdict: Verdict) -> None:
        body = {
            "verdict": verdict.id,
            "checkpoint": verdict.checkpoint_id,
            "evaluation": verdict.evaluation_id,
            "outcome": str(verdict.outcome),
            "policy": verdict.policy_id,
            "rules": [rule.id for rule in verdict.rules],
        }
        self._add("verdicts", verdict, "verdict.given", body)

    def verdict_of(self, checkpoint_id: str) -> Verdict | None:
        sql = "SELECT * FROM verdicts WHERE checkpoint_id = ? ORDER BY seq DESC LIMIT 1"
        return self._one(Verdict, sql, checkpoint_id)

    def add_operator(self, operator: Operator) -> None:
        body = {"key_id": operator.key_id, "name": operator.name, "public_key": operator.public_key}
        self._add("operators", operator, "operator.added", body)

    def operators(self) -> list[Operator]:
        """In the order they were introduced."""
        return self._select(Operator, "SELECT * FROM operators ORDER BY seq")

    def operator(self, key_id: str) -> Operator | None:
        return self._one(Operator, "SELECT * FROM operators WHERE key_id = ?", key_id)

    def add_approval(self, approval: Approval) -> None:
        body = {
            "approval": approval.id,
            "checkpoint": approval.checkpoint_id,
            "key_id": approval.key_id,
            "operator": approval.operator,
            "expires_at": approval.expires_at,
        }
        is_no = approval.decision is Decision.REJECT
        event = "rejection.accepted" if is_no else "approval.accepted"

        def job(conn: Connection) -> None:
            if conn.execute("SELECT 1 FROM approvals WHERE id = ?", [approval.id]).fetchone():
                raise ReplayedApproval(f"approval {approval.id} was used before; sign a new one")
            if is_no and _champion(conn, "")[0] == approval.checkpoint_id:
                raise ServesAlready(
                    f"{approval.checkpoint_id} serves already; first take it back: honed rollback --reason …"
                )
            witness.record(conn, self._audit, "approvals", to_row(approval), event, body)

        self._db.write(job)

    def approvals_of(self, checkpoint_id: str) -> list[Approval]:
        """Approvals and rejections alike, in the order they came."""
        return self._select(Approval, "SELECT * FROM approvals WHERE checkpoint_id = ? ORDER BY seq", checkpoint_id)

    def is_rejected(self, checkpoint_id: str) -> bool:
        """Whether any operator ever said no to it."""
        with self._db.read() as conn:
            return _is_rejected(conn, checkpoint_id)

    def promote(
        self,
        *,
        checkpoint_id: str,
        previous_id: str,
        kind: PromotionKind,
        actor: str,
        reason: str,
        approval_ids: Sequence[str],
        at: float,
        expected_champion: str,
        base_id: str,
    ) -> Promotion:
        """The one INSERT that makes a champion. Overtaken when the champion is not the one this was decided against any
        more, when it was rejected meanwhile, or when its approvals made a promotion already.
        """

        def job(conn: Connection) -> Promotion:
            found, newest = _champion(conn, base_id)
            if found != expected_champion:
                raise ChampionMoved(expected_champion, found)
            if previous_id != found:
                raise StoreError(f"previous_id must be the champion it replaces, {found}, got {previous_id}")
            if checkpoint_id != base_id:
                _require_checkpoint(conn, checkpoint_id)
            _require_unspent(conn, approval_ids)
            promotion = Promotion(
                newest + 1, float(at), checkpoint_id, previous_id, kind, actor, reason, tuple(approval_ids)
            )
            self._witness_promotion(conn, promotion)
            return promotion

        return self._db.write(job)

    def promotions(self, limit: int | None = None) -> list[Promotion]:
        """Newest first."""
        sql = "SELECT * FROM promotions ORDER BY id DESC LIMIT ?"
        return self._select(Promotion, sql, -1 if limit is None else limit)

    def promotion_to(self, checkpoint_id: str) -> Promotion | None:
        """The newest approved promotion to it; a rollback to it doesn't count."""
        sql = "SELECT * FROM promotions WHERE checkpoint_id = ? AND kind = 'promote' ORDER BY id DESC LIMIT 1"
        return self._one(Promotion, sql, checkpoint_id)

    def champion(self, base_id: str) -> str:
        with self._db.read() as conn:
            return _champion(conn, base_id)[0]

    def first_pin(self, source: str) -> str | None:
        """The base that this source was on record with first; None when it never was."""
        sql = """SELECT json_extract(body, '$.base') AS base FROM audit
                 WHERE event = 'base.pinned' AND json_extract(body, '$.source') = ? ORDER BY seq LIMIT 1"""
        with self._db.read() as conn:
            row = fetch_one(conn, sql, [source])
        return str(row["base"]) if row else None

    def note(self, event: str, body: Json, at: float) -> AuditEntry:
        """An audit entry of its own, for what leaves no row: a refused load, a refused approval, a started run."""
        return self._db.write(lambda conn: self._audit.append(conn, event, body, at))

    def _add(self, table: str, record: Checkpoint | Evaluation | Verdict | Operator, event: str, body: Json) -> None:
        row = to_row(record)
        self._db.write(lambda conn: witness.record(conn, self._audit, table, row, event, body))

    def _witness_promotion(self, conn: Connection, promotion: Promotion) -> None:
        body = {
            "promotion": promotion.id,
            "checkpoint": promotion.checkpoint_id,
            "previous": promotion.previous_id,
            "actor": promotion.actor,
            "approvals": list(promotion.approval_ids),
        }
        event = "promotion.made" if promotion.kind is PromotionKind.PROMOTE else "rollback.made"
        witness.record(conn, self._audit, "promotions", to_row(promotion), event, body)

    def _select(self, kind: type[R], sql: str, *parameters: Any) -> list[R]:
        with self._db.read() as conn:
            return [from_row(kind, row) for row in fetch(conn, sql, parameters)]

    def _one(self, kind: type[R], sql: str, *parameters: Any) -> R | None:
        return next(iter(self._select(kind, sql, *parameters)), None)


def _champion(conn: Connection, base_id: str) -> tuple[str, int]:
    """Who serves, and the number of the promotion that says so."""
    row = fetch_one(conn, "SELECT id, checkpoint_id FROM promotions ORDER BY id DESC LIMIT 1")
    return (row["checkpoint_id"], row["id"]) if row else (base_id, 0)


def _require_checkpoint(conn: Connection, checkpoint_id: str) -> None:
    if conn.execute("SELECT 1 FROM checkpoints WHERE id = ?", [checkpoint_id]).fetchone() is None:
        raise StoreError(f"no checkpoint {checkpoint_id}; register it before promoting it")
    if _is_rejected(conn, checkpoint_id):
        raise CheckpointRejected(f"an operator rejected {checkpoint_id}; it can never serve again")


def _is_rejected(conn: Connection, checkpoint_id: str) -> bool:
    sql = "SELECT 1 FROM approvals WHERE checkpoint_id = ? AND decision = 'reject'"
    return conn.execute(sql, [checkpoint_id]).fetchone() is not None


def _require_unspent(conn: Connection, approval_ids: Sequence[str]) -> None:
    """An approval makes one promotion."""
    sql = "SELECT 1 FROM promotions, json_each(promotions.approval_ids) AS spent WHERE spent.value = ?"
    for approval_id in approval_ids:
        if conn.execute(sql, [approval_id]).fetchone():
            raise ApprovalSpent(f"approval {approval_id} made a promotion before; sign a new one")
