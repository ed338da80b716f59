"""kill -9 at random moments of chat, training and promotion.

Nothing acknowledged is lost, nothing unapproved ever answers, and the same champion comes back.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.statement import sign
from service import ledger
from service.cli.deciding import make_statement
from service.client import NoDaemon, Refused
from service.config import Settings
from service.daemon import Daemon
from service.paths import Paths
from store.database import Database
from store.interactions import Interactions
from store.records import Checkpoint, Decision, PromotionKind
from store.runs import Runs
from store.witness import compare
from tests.crash_driver import Acknowledged, DaemonProcess, keep_talking
from tests.service.conftest import wait_until
from tests.service.ledger_fakes import Person, add_candidate, add_operator

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

NUM_KILLS = int(os.environ.get("HONED_TEST_KILLS", "3"))
LONGEST_LIFE_SECONDS = 6.0


def test_a_killed_daemon_comes_back_as_it_was(
    tmp_path: Path, tiny_llama: Path, tiny_embedder: Path, make_settings: Callable[..., Settings]
) -> None:
    state, seed = tmp_path / "state", random.randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    daemon = Daemon(make_settings(state))  # the ledger gets a candidate and an operator before the first start
    candidate, person = add_candidate(daemon), add_operator(daemon)
    base_id, model = daemon.base.id, daemon.model_name
    daemon.close()
    process = DaemonProcess(
        state,
        {
            "HONED_MODEL": str(tiny_llama),
            "HONED_EMBEDDER": str(tiny_embedder),
            "HONED_DEVICE": "cpu",
            "HONED_DTYPE": "float32",
            "HONED_THREADS": "1",
            "HONED_TRAIN_THREADS": "1",
            "HONED_TRAIN_MIN_LABELS": "3",
            "HONED_TRAIN_INTERVAL_SECONDS": "1",
            "HONED_SCORE_INTERVAL_SECONDS": "1",
        },
    )
    acknowledged = Acknowledged()
    try:
        for _ in range(NUM_KILLS):
            process.start()
            require_nothing_lost(state, acknowledged)
            require_recorded_champion(process, state, base_id)
            live_until_killed(process, candidate, person, model, acknowledged, moments)
        process.start()
        require_nothing_lost(state, acknowledged)
        require_recorded_champion(process, state, base_id)
        assert acknowledged.checkpoints <= {base_id, candidate.id}
        assert len(acknowledged.turns) >= NUM_KILLS
        wait_until(lambda: all(run.state.is_over for run in runs_of(state)[1:]), seconds=120)
    finally:
        process.stop()


def live_until_killed(
    process: DaemonProcess,
    candidate: Checkpoint,
    person: Person,
    model: str,
    acknowledged: Acknowledged,
    moments: random.Random,
) -> None:
    """Chat, feedback, scheduled training and promotions all at once, and then a kill at a moment nobody chose."""
    stop = threading.Event()
    work = [
        threading.Thread(target=keep_talking, args=(process.client, model, acknowledged, stop)),
        threading.Thread(target=keep_deciding, args=(process, candidate, person, stop)),
    ]
    for thread in work:
        thread.start()
    time.sleep(moments.uniform(0.05, LONGEST_LIFE_SECONDS))
    process.kill()
    stop.set()
    for thread in work:
        thread.join()


def keep_deciding(process: DaemonProcess, candidate: Checkpoint, person: Person, stop: threading.Event) -> None:
    """Promote and roll back in turn."""
    while not stop.is_set():
        try:
            champion = process.client.get("/operator/status")["recorded_champion"]
            if champion == candidate.id:
                process.client.post("/operator/rollback", {"reason": "on and off"})
            else:
                envelope = envelope_for(process, candidate, person)
                process.client.post("/operator/decide", {"envelope": envelope})
        except (NoDaemon, Refused, OSError, ValueError):
            time.sleep(0.05)


def envelope_for(process: DaemonProcess, candidate: Checkpoint, person: Person) -> dict[str, Any]:
    binds = process.client.get(f"/operator/review?checkpoint={candidate.id}")["binds"]
    statement = make_statement(binds, Decision.APPROVE, "on and off", person.name, person.key_id, time.time(), 1.0)
    return sign(statement, person.signer)


def require_nothing_lost(state: Path, acknowledged: Acknowledged) -> None:
    """Every turn and word of feedback that was answered with 200 is there, and the record holds together."""
    db = Database.open_read_only(Paths(state).log)
    interactions = Interactions(db)
    for interaction_id, turn in acknowledged.turns.items():
        found = interactions.get(interaction_id)
        assert found is not None and found.reply == turn["reply"]
    for feedback_id, interaction_id in acknowledged.feedback.items():
        assert feedback_id in {feedback.id for feedback in interactions.feedback_for(interaction_id)}
    db.close()
    with ledger.read_only(Paths(state)) as book:
        assert book.audit.verify().problems == ()
        assert compare(book.db, book.audit) == ()


def require_recorded_champion(process: DaemonProcess, state: Path, base_id: str) -> None:
    """What answers is what the ledger names, and that is the base or was promoted with an approval."""
    with ledger.read_only(Paths(state)) as book:
        recorded = book.registry.champion(base_id)
        promotions = book.registry.promotions()
    status = process.client.get("/operator/status")
    assert status["champion"]["id"] == recorded
    assert status["refused"] == []
    assert all(promotion.approval_ids for promotion in promotions if promotion.kind is PromotionKind.PROMOTE)


def runs_of(state: Path) -> list[Any]:
    db = Database.open_read_only(Paths(state).log)
    try:
        return Runs(db).recent(100)
    finally:
        db.close()
