"""What a real daemon's ledger holds, in one line: sealed candidates with a verdict, operators, signed decisions."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from securesystemslib.signer import CryptoSigner

from agent.recipe import Recipe
from policies.operators import introduce
from policies.statement import Statement, sign
from service import keys
from service.daemon import Daemon
from store import artifacts
from store.audit import digest
from store.records import (
    Checkpoint,
    DatasetSnapshot,
    Decision,
    Evaluation,
    Outcome,
    RuleHit,
    RunState,
    TrainingRun,
    Verdict,
)
from tests.fakes import adapter_files

HOUR = 3600.0
SCORE = {"num_right": 3, "num_exact": 2, "num_items": 3, "low": 0.4385, "high": 1.0}
FLATTERY = {"num_items": 40, "truth_nll": 2.0, "flattery_nll": 2.2, "num_praising": 2}
RESULTS: dict[str, Any] = {
    "suites": {
        suite: dict.fromkeys(("candidate", "champion", "base"), SCORE)
        for suite in ("asked", "paraphrase", "holdout", "retention")
    },
    "nll": {"candidate": 0.5, "champion": 0.5, "base": 0.5},
    "length_ratio": 1.0,
    "num_train": 3,
    "max_tokens": 48,
    "flattery": dict.fromkeys(("candidate", "champion", "base"), FLATTERY),
    "repairs": {"num_items": 0, "num_lost": 0},
    "num_judged": 0,
    "preferred": {name: {"num_items": 0, "num_right": 0} for name in ("candidate", "champion", "base")},
    "slices": [
        {"name": "boats", "num_items": 20, "num_lost": 1, "num_right": {"candidate": 18, "champion": 17, "base": 3}}
    ],
}


@dataclass(frozen=True, slots=True)
class Person:
    """An operator and their private key."""

    name: str
    signer: CryptoSigner

    @property
    def key_id(self) -> str:
        return str(self.signer.public_key.keyid)


def stranger(name: str = "eve") -> Person:
    """Somebody with a key that no daemon knows."""
    return Person(name, CryptoSigner.generate_ed25519())


def add_operator(daemon: Daemon, name: str = "ann", *, sponsor: Person | None = None) -> Person:
    """Somebody the daemon knows; the second and later need a sponsor."""
    person = stranger(name)
    signers = [person.signer, *([sponsor.signer] if sponsor else [])]
    daemon.decisions.add_operator(introduce(name, keys.public_hex(person.signer), time.time(), signers))
    return person


def add_candidate(
    daemon: Daemon,
    *,
    outcome: Outcome | None = Outcome.PASS,
    seed: int = 1,
    files: Mapping[str, bytes] | None = None,
    base: str | None = None,
    moved: float | None = None,
) -> Checkpoint:
    """A sealed adapter with its run, evaluation and verdict, as the cycle would have left them."""
    stores, now = daemon.stores, time.time()
    champion = stores.registry.champion(daemon.base.id)
    run_id = secrets.token_hex(16)
    snapshot = DatasetSnapshot(digest([seed, run_id]), now, 3, 0, 2, {"person": 3, "model": 2})
    stores.runs.add_snapshot(snapshot)
    run = TrainingRun(run_id, now, "operator:ann", daemon.base.id, snapshot.id, Recipe().to_json())
    stores.runs.create(run)
    meta = {
        "kind": "checkpoint",
        "run": run_id,
        "base": base or daemon.base.id,
        "parent": champion,
        "dataset": snapshot.id,
        "recipe": Recipe().to_json(),
        "versions": {"torch": "2"},
        "training": {"loss": 0.1, "steps": 3.0, **({} if moved is None else {"moved": moved})},
    }
    checkpoint_id = _publish(daemon, files or adapter_files(seed=seed), meta)
    checkpoint = Checkpoint(checkpoint_id, now, run_id, daemon.base.id, champion, snapshot.id, meta)
    stores.registry.add_checkpoint(checkpoint)
    stores.runs.update(run_id, state=RunState.JUDGED, finished_at=now, checkpoint_id=checkpoint_id)
    if outcome is not None:
        judge(daemon, checkpoint, outcome)
    return checkpoint


def judge(
    daemon: Daemon, checkpoint: Checkpoint, outcome: Outcome, *, results: Mapping[str, Any] = MappingProxyType(RESULTS)
) -> None:
    """An evaluation, and what policy is to have said of it."""
    now, results = time.time(), dict(results)
    identity = {"checkpoint": checkpoint.id, "results": results}
    evaluation = Evaluation(digest(identity), now, checkpoint.id, checkpoint.parent_id, daemon.base.id, results)
    rules = (RuleHit("promote.allow", "permit", "it learnt what it was taught"),)
    daemon.stores.registry.add_evaluation(evaluation)
    daemon.stores.registry.add_verdict(
        Verdict(secrets.token_hex(8), now, checkpoint.id, evaluation.id, outcome, rules, {}, daemon.policy_set.id)
    )


def statement(daemon: Daemon, person: Person, candidate: Checkpoint, /, **changes: Any) -> Statement:
    """A yes to a candidate as things stand; keyword arguments replace any field."""
    registry, now = daemon.stores.registry, time.time()
    evaluation = registry.evaluation_of(candidate.id)
    fields: dict[str, Any] = {
        "candidate": candidate.id,
        "champion": registry.champion(daemon.base.id),
        "base": daemon.base.id,
        "policy": daemon.policy_set.id,
        "evaluation": evaluation.id if evaluation else "none",
        "dataset": candidate.dataset_id,
        "decision": Decision.APPROVE,
        "reason": "read all the changed answers",
        "operator": person.name,
        "key_id": person.key_id,
        "nonce": secrets.token_hex(16),
        "issued_at": now,
        "expires_at": now + HOUR,
    }
    return Statement(**(fields | changes))


def signed(daemon: Daemon, person: Person, candidate: Checkpoint, /, **changes: Any) -> dict[str, Any]:
    """That statement in its envelope."""
    return sign(statement(daemon, person, candidate, **changes), person.signer)


def promote(daemon: Daemon, person: Person, candidate: Checkpoint) -> None:
    """Approved and answering."""
    decided = daemon.decisions.decide(signed(daemon, person, candidate))
    assert decided.promotion is not None


def _publish(daemon: Daemon, files: Mapping[str, bytes], meta: Mapping[str, Any]) -> str:
    staged = Path(tempfile.mkdtemp(dir=daemon.paths.runs)) / "checkpoint"
    staged.mkdir()
    for name, data in files.items():
        (staged / name).write_bytes(data)
    checkpoint_id = artifacts.seal(staged, meta)
    artifacts.publish(staged, daemon.paths.checkpoint(checkpoint_id))
    shutil.rmtree(staged.parent)
    return checkpoint_id
