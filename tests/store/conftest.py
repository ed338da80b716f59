"""Opened stores, and whole records with one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import migrations
from store.audit import AuditChain
from store.comparisons import Choice, Comparison
from store.database import Database
from store.interactions import Interactions
from store.labels import Labels
from store.records import (
    Approval,
    Checkpoint,
    DatasetSnapshot,
    Decision,
    Evaluation,
    Feedback,
    FeedbackSource,
    FinishReason,
    Interaction,
    LabelTask,
    Operator,
    Outcome,
    RuleHit,
    TokenTrace,
    TrainingRun,
    Verdict,
)
from store.registry import Registry
from store.runs import Runs


class Make:
    """Records with plausible values; keyword arguments replace any of them."""

    @staticmethod
    def interaction(id_: str = "i1", **changes: Any) -> Interaction:
        values: dict[str, Any] = {
            "conversation_id": "c1",
            "created_at": 100.0,
            "principal": "ann",
            "checkpoint_id": "base",
            "messages": ({"role": "user", "content": "Wie heißt du?"},),
            "reply": "Honed.",
            "finish_reason": FinishReason.STOP,
            "tokens": (TokenTrace(7, -0.5, 0.25), TokenTrace(49151, -2.0, 1.5)),
            "prompt_tokens": 5,
            "latency_seconds": 0.125,
            "uncertainty": 0.875,
            "sampling": {"temperature": 0.7},
        }
        return Interaction(id_, **(values | changes))

    @staticmethod
    def feedback(id_: str = "f1", interaction_id: str = "i1", **changes: Any) -> Feedback:
        values: dict[str, Any] = {"created_at": 200.0, "principal": "ann", "source": FeedbackSource.FEEDBACK}
        return Feedback(id_, interaction_id, **(values | changes))

    @staticmethod
    def comparison(id_: str = "c1", first_id: str = "i1", second_id: str = "i0", **changes: Any) -> Comparison:
        values: dict[str, Any] = {"created_at": 140.0, "principal": "ann", "source": FeedbackSource.LABEL}
        return Comparison(id_, first_id, second_id, **(values | {"choice": Choice.FIRST} | changes))

    @staticmethod
    def task(id_: str = "t1", interaction_id: str = "i1", **changes: Any) -> LabelTask:
        values: dict[str, Any] = {"created_at": 150.0, "score": 0.5, "reason": "unsure"}
        return LabelTask(id_, interaction_id, **(values | changes))

    @staticmethod
    def snapshot(id_: str = "d1") -> DatasetSnapshot:
        return DatasetSnapshot(id_, 300.0, num_train=3, num_holdout=1, num_replay=2, sources={"feedback": 3})

    @staticmethod
    def run(id_: str = "run-1", **changes: Any) -> TrainingRun:
        values: dict[str, Any] = {
            "created_at": 310.0,
            "trigger": "operator:ann",
            "base_id": "base",
            "snapshot_id": "d1",
            "recipe": {"rank": 8},
        }
        return TrainingRun(id_, **(values | changes))

    @staticmethod
    def checkpoint(id_: str = "aaaa1", **changes: Any) -> Checkpoint:
        values: dict[str, Any] = {
            "created_at": 400.0,
            "run_id": "run-1",
            "base_id": "base",
            "parent_id": "base",
            "dataset_id": "d1",
            "manifest": {"format": 1, "files": {}},
        }
        return Checkpoint(id_, **(values | changes))

    @staticmethod
    def evaluation(id_: str = "e1", checkpoint_id: str = "aaaa1", **changes: Any) -> Evaluation:
        values: dict[str, Any] = {
            "created_at": 410.0,
            "champion_id": "base",
            "base_id": "base",
            "results": {"suites": {"asked": {"num_right": 3}}},
        }
        return Evaluation(id_, checkpoint_id=checkpoint_id, **(values | changes))

    @staticmethod
    def verdict(id_: str = "v1", checkpoint_id: str = "aaaa1", evaluation_id: str = "e1") -> Verdict:
        rules = (RuleHit("asked.enough", "permit", "it learnt what it was asked"),)
        return Verdict(id_, 420.0, checkpoint_id, evaluation_id, Outcome.PASS, rules, {"asked_permille": 1000}, "p1")

    @staticmethod
    def operator(key_id: str = "k1", name: str = "ann") -> Operator:
        return Operator(key_id, name, "00" * 32, 50.0, {"payload": "e30="})

    @staticmethod
    def approval(id_: str = "n1", checkpoint_id: str = "aaaa1", **changes: Any) -> Approval:
        values: dict[str, Any] = {
            "created_at": 430.0,
            "decision": Decision.APPROVE,
            "key_id": "k1",
            "operator": "ann",
            "reason": "reads well to me",
            "expires_at": 900.0,
            "envelope": {"payload": "e30="},
        }
        return Approval(id_, checkpoint_id=checkpoint_id, **(values | changes))


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "honed.db", migrations.log)
    yield db
    db.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Database]:
    db = Database(tmp_path / "ledger.db", migrations.ledger)
    yield db
    db.close()


@pytest.fixture
def interactions(log: Database) -> Interactions:
    return Interactions(log)


@pytest.fixture
def labels(log: Database) -> Labels:
    return Labels(log)


@pytest.fixture
def runs(log: Database) -> Runs:
    return Runs(log)


@pytest.fixture
def audit(ledger: Database) -> AuditChain:
    return AuditChain(ledger)


@pytest.fixture
def registry(ledger: Database, audit: AuditChain) -> Registry:
    return Registry(ledger, audit)
