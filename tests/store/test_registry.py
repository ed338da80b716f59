"""The ledger: every write leaves its audit entry, and the champion changes one decision at a time."""

import sqlite3
import threading
from typing import Any

import pytest

from store import migrations, witness
from store.audit import AuditChain, digest
from store.database import Database, StoreError
from store.records import Decision, Promotion, PromotionKind
from store.registry import (
    ApprovalSpent,
    ChampionMoved,
    CheckpointRejected,
    Registry,
    ReplayedApproval,
    ServesAlready,
)
from store.rows import fetch_one


@pytest.fixture
def judged(registry: Registry, make) -> Registry:
    registry.add_checkpoint(make.checkpoint())
    registry.add_evaluation(make.evaluation())
    registry.add_verdict(make.verdict())
    registry.add_operator(make.operator())
    return registry


def promote(registry: Registry, checkpoint_id: str = "aaaa1", expected: str = "base", **changes: Any) -> Promotion:
    values: dict[str, Any] = {
        "previous_id": expected,
        "kind": PromotionKind.PROMOTE,
        "actor": "ann",
        "reason": "better",
        "approval_ids": ["n1"],
        "at": 440.0,
        "base_id": "base",
    }
    return registry.promote(checkpoint_id=checkpoint_id, expected_champion=expected, **(values | changes))


def judge(registry: Registry, make, id_: str) -> None:
    registry.add_checkpoint(make.checkpoint(id_))
    registry.add_evaluation(make.evaluation(f"e-{id_}", id_))
    registry.add_verdict(make.verdict(f"v-{id_}", id_, f"e-{id_}"))


def test_records_come_back_as_they_went_in(judged: Registry, make) -> None:
    judged.add_approval(make.approval())
    assert judged.checkpoint("aaaa1") == make.checkpoint()
    assert judged.checkpoints() == [make.checkpoint()]
    assert judged.evaluation("e1") == make.evaluation()
    assert judged.evaluation_of("aaaa1") == make.evaluation()
    assert judged.verdict_of("aaaa1") == make.verdict()
    assert judged.operators() == [make.operator()]
    assert judged.operator("k1") == make.operator()
    assert judged.approvals_of("aaaa1") == [make.approval()]


def test_what_is_not_there_gives_none(registry: Registry) -> None:
    assert registry.checkpoint("aaaa1") is None
    assert registry.evaluation("e1") is None
    assert registry.evaluation_of("aaaa1") is None
    assert registry.verdict_of("aaaa1") is None
    assert registry.operator("k1") is None
    assert registry.promotion_to("aaaa1") is None
    assert registry.approvals_of("aaaa1") == []


def test_a_checkpoint_is_found_by_the_beginning_of_its_id(registry: Registry, make) -> None:
    for id_ in ("abcd1", "abcd2", "beef0"):
        registry.add_checkpoint(make.checkpoint(id_))
    assert registry.checkpoint("beef").id == "beef0"
    with pytest.raises(StoreError, match="abcd1, abcd2"):
        registry.checkpoint("abcd")
    with pytest.raises(StoreError, match="at least 4"):
        registry.checkpoint("bee")


def test_the_newest_evaluation_and_verdict_stand(judged: Registry, make) -> None:
    judged.add_evaluation(make.evaluation("e2"))
    judged.add_verdict(make.verdict("v2", evaluation_id="e2"))
    assert judged.evaluation_of("aaaa1").id == "e2"
    assert judged.verdict_of("aaaa1").id == "v2"


def test_each_write_leaves_one_audit_entry_with_ids_and_the_digest_of_its_row(
    judged: Registry, audit: AuditChain, make
) -> None:
    judged.add_approval(make.approval())
    promote(judged)
    promote(judged, "base", "aaaa1", kind=PromotionKind.ROLLBACK, approval_ids=[])
    judged.add_approval(make.approval("n2", decision=Decision.REJECT))
    entries = audit.entries()
    assert [entry.event for entry in entries] == [
        "checkpoint.registered",
        "evaluation.recorded",
        "verdict.given",
        "operator.added",
        "approval.accepted",
        "promotion.made",
        "rollback.made",
        "rejection.accepted",
    ]
    assert all(len(entry.body["row"]) == 64 for entry in entries)
    promotion = entries[5].body
    assert {key: promotion[key] for key in promotion if key != "row"} == {
        "promotion": 1,
        "checkpoint": "aaaa1",
        "previous": "base",
        "actor": "ann",
        "approvals": ["n1"],
    }
    assert audit.verify().problems == ()


def test_a_refused_write_leaves_neither_row_nor_entry(registry: Registry, audit: AuditChain, make) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        registry.add_evaluation(make.evaluation())
    assert registry.evaluation("e1") is None
    assert audit.head() is None


def test_a_note_is_an_entry_on_its_own(registry: Registry, audit: AuditChain) -> None:
    entry = registry.note("load.refused", {"checkpoint": "aaaa1"}, 5.0)
    assert audit.head() == entry


def test_a_replayed_approval_is_refused(judged: Registry, make) -> None:
    judged.add_approval(make.approval())
    with pytest.raises(ReplayedApproval, match="n1"):
        judged.add_approval(make.approval(decision=Decision.REJECT))
    assert judged.approvals_of("aaaa1") == [make.approval()]


def test_without_promotions_the_base_is_champion(registry: Registry) -> None:
    assert registry.champion("base") == "base"
    assert registry.promotions() == []


def test_a_promotion_makes_the_champion_and_a_rollback_is_another_row(judged: Registry) -> None:
    made = promote(judged)
    assert made == Promotion(1, 440.0, "aaaa1", "base", PromotionKind.PROMOTE, "ann", "better", ("n1",))
    assert judged.champion("base") == "aaaa1"
    back = promote(judged, "base", "aaaa1", kind=PromotionKind.ROLLBACK, approval_ids=[])
    assert judged.champion("base") == "base"
    assert judged.promotions() == [back, made]
    assert judged.promotions(limit=1) == [back]


def test_promotion_to_gives_the_approved_one_not_a_rollback(judged: Registry, make) -> None:
    judge(judged, make, "bbbb2")
    first = promote(judged)
    promote(judged, "bbbb2", "aaaa1", approval_ids=["n2"])
    promote(judged, "aaaa1", "bbbb2", kind=PromotionKind.ROLLBACK, approval_ids=[])
    assert judged.promotion_to("aaaa1") == first
    assert judged.promotion_to("base") is None


def test_a_promotion_decided_against_another_champion_is_refused(judged: Registry, make, audit: AuditChain) -> None:
    judge(judged, make, "bbbb2")
    promote(judged)
    head = audit.head()
    with pytest.raises(ChampionMoved, match="aaaa1, not base") as caught:
        promote(judged, "bbbb2", "base")
    assert (caught.value.expected, caught.value.found) == ("base", "aaaa1")
    assert judged.champion("base") == "aaaa1"
    assert audit.head() == head


def test_a_promotion_that_lies_about_its_predecessor_is_refused(judged: Registry) -> None:
    with pytest.raises(StoreError, match="previous_id must be"):
        promote(judged, previous_id="aaaa1")


def test_an_unregistered_checkpoint_is_not_promoted(judged: Registry) -> None:
    with pytest.raises(StoreError, match="no checkpoint cccc3"):
        promote(judged, "cccc3")


@pytest.mark.parametrize("kind", PromotionKind)
def test_a_rejected_checkpoint_is_neither_promoted_nor_gone_back_to(
    judged: Registry, make, audit: AuditChain, kind: PromotionKind
) -> None:
    judge(judged, make, "bbbb2")
    assert not judged.is_rejected("bbbb2")
    judged.add_approval(make.approval("n2", "bbbb2", decision=Decision.REJECT))
    assert judged.is_rejected("bbbb2")
    head = audit.head()
    with pytest.raises(CheckpointRejected, match="rejected bbbb2"):
        promote(judged, "bbbb2", kind=kind, approval_ids=[])
    assert (judged.promotions(), audit.head()) == ([], head)


def test_the_champion_is_not_rejected_until_something_else_is_champion(judged: Registry, make) -> None:
    no = make.approval("n2", decision=Decision.REJECT)
    promote(judged)
    with pytest.raises(ServesAlready, match="aaaa1 serves already"):
        judged.add_approval(no)
    assert judged.approvals_of("aaaa1") == []
    promote(judged, "base", "aaaa1", kind=PromotionKind.ROLLBACK, approval_ids=[])
    judged.add_approval(no)
    assert judged.approvals_of("aaaa1") == [no]


def test_an_approval_makes_one_promotion(judged: Registry) -> None:
    promote(judged, approval_ids=["n1", "n2"])
    back = promote(judged, "base", "aaaa1", kind=PromotionKind.ROLLBACK, approval_ids=[])
    with pytest.raises(ApprovalSpent, match="n2 made a promotion before"):
        promote(judged, approval_ids=["n3", "n2"])
    assert judged.promotions(limit=1) == [back]
    promote(judged, approval_ids=["n3", "n"])  # the beginning of one is another


def test_the_first_pin_of_a_source_is_found_behind_any_later_one(registry: Registry) -> None:
    for at, (source, base) in enumerate([("a", "1"), ("b", "2"), ("a", "3"), ("b", "2")]):
        registry.note("base.pinned", {"source": source, "base": base}, float(at))
    registry.note("load.refused", {"source": "c", "base": "4"}, 9.0)
    assert [registry.first_pin(source) for source in "abc"] == ["1", "2", None]


def test_of_many_promotions_at_once_in_two_openings_of_the_file_one_gets_through(
    judged: Registry, make, ledger: Database
) -> None:
    names = [f"race{n}" for n in range(12)]
    for name in names:
        judge(judged, make, name)
    other_db = Database(ledger.path, migrations.ledger)
    other = Registry(other_db, AuditChain(other_db))
    barrier = threading.Barrier(len(names))
    won: list[str] = []
    lost: list[str] = []

    def race(name: str, registry: Registry) -> None:
        barrier.wait(5)
        try:
            promote(registry, name)
            won.append(name)
        except ChampionMoved:
            lost.append(name)

    threads = [threading.Thread(target=race, args=[name, (judged, other)[n % 2]]) for n, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other_db.close()
    assert len(won) == 1
    assert len(lost) == len(names) - 1
    assert judged.champion("base") == won[0]
    assert len(judged.promotions()) == 1
    assert AuditChain(ledger).verify().problems == ()


def test_candidates_are_judged_never_promoted_and_not_rejected_newest_first(judged: Registry, make) -> None:
    for id_ in ("bbbb2", "cccc3", "dddd4"):
        judge(judged, make, id_)
    judged.add_checkpoint(make.checkpoint("eeee5"))  # no verdict yet
    judged.add_approval(make.approval("n1", "bbbb2", decision=Decision.REJECT))
    judged.add_approval(make.approval("n2", "cccc3"))
    promote(judged)
    promote(judged, "base", "aaaa1", kind=PromotionKind.ROLLBACK, approval_ids=[])
    assert [checkpoint.id for checkpoint in judged.candidates()] == ["dddd4", "cccc3"]


def test_rows_and_chain_agree_when_nobody_meddled(judged: Registry, make, ledger: Database, audit: AuditChain) -> None:
    judged.add_approval(make.approval(created_at=430))  # an int in a REAL column comes back as a float
    promote(judged, at=440)
    judged.note("load.refused", {"checkpoint": "aaaa1"}, 5.0)
    assert witness.compare(ledger, audit) == ()


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("INSERT INTO promotions VALUES (2, 1.0, 'evil', 'aaaa1', 'rollback', 'x', 'y', '[]')", "promotions row 2"),
        ("DROP TRIGGER verdicts_update; UPDATE verdicts SET outcome = 'pass', facts = '{}'", "verdicts row 1"),
        ("DROP TRIGGER promotions_delete; DELETE FROM promotions", "witnessed is gone"),
        ("INSERT INTO operators VALUES (9, 'k9', 'eve', '00', 1.0, '{}')", "operators row 9"),
    ],
)
def test_rows_slipped_in_edited_or_taken_out_beside_the_chain_are_found(
    judged: Registry, ledger: Database, audit: AuditChain, sql: str, problem: str
) -> None:
    promote(judged)
    conn = sqlite3.connect(ledger.path)
    conn.executescript(sql)
    conn.close()
    assert audit.verify().problems == ()
    assert problem in "\n".join(witness.compare(ledger, audit))


def test_the_digest_in_the_chain_is_of_the_stored_row(judged: Registry, ledger: Database, audit: AuditChain) -> None:
    with ledger.read() as conn:
        row = fetch_one(conn, "SELECT * FROM checkpoints")
    assert audit.entries()[0].body["row"] == digest(row)
