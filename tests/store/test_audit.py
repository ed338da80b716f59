"""Canonical JSON and the hash chain, against tampering done with plain SQLite behind its back."""

import hashlib
import math
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from store.audit import GENESIS, MAX_PROBLEMS, AuditChain, canonical_json, digest
from store.database import Database, StoreError
from store.records import Outcome, RuleHit

Tamper = Callable[..., sqlite3.Cursor]


def grow(ledger: Database, audit: AuditChain, count: int) -> None:
    def job(conn) -> None:
        for n in range(count):
            audit.append(conn, "test.happened", {"n": n, "text": 'Grüße "🙂"'}, 100.0 + n / 3)

    ledger.write(job)


@pytest.fixture
def tamper(ledger: Database):
    """Runs SQL the way an intruder with a file would: no triggers, no pragmas."""
    conn = sqlite3.connect(ledger.path, isolation_level=None)
    for verb in ("update", "delete", "insert"):
        conn.execute(f"DROP TRIGGER audit_{verb}")
    yield conn.execute
    conn.close()


def test_canonical_json_is_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1.0, None, True, "ü"]}) == '{"a":[1.0,null,true,"ü"],"b":1}'.encode()
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    assert canonical_json(MappingProxyType({"x": (1, 2)})) == b'{"x":[1,2]}'
    assert canonical_json([RuleHit("r", "permit", "ok"), Outcome.PASS]) == (
        b'[{"effect":"permit","id":"r","reason":"ok"},"pass"]'
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\ud800"])
def test_canonical_json_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json({"x": value})


def test_canonical_json_refuses_types_without_a_spelling() -> None:
    with pytest.raises(TypeError, match="bytes"):
        canonical_json({"x": b"raw"})


def test_digest_is_sha256_of_the_canonical_json() -> None:
    assert digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


def test_an_empty_chain_has_no_head_and_no_problem(audit: AuditChain) -> None:
    assert audit.head() is None
    report = audit.verify()
    assert (report.num_entries, report.head, report.problems) == (0, GENESIS, ())


def test_an_entry_hashes_the_one_before_and_the_canonical_json_of_the_rest(ledger: Database, audit: AuditChain) -> None:
    grow(ledger, audit, 2)
    first, second = audit.entries()
    assert (first.seq, first.prev_hash, second.seq, second.prev_hash) == (1, GENESIS, 2, first.hash)
    for entry in (first, second):
        rest = {"seq": entry.seq, "created_at": entry.created_at, "event": entry.event, "body": entry.body}
        assert entry.hash == hashlib.sha256(entry.prev_hash.encode() + canonical_json(rest)).hexdigest()
    assert audit.head() == second


def test_append_gives_the_entry_as_it_is_stored(ledger: Database, audit: AuditChain) -> None:
    entry = ledger.write(lambda conn: audit.append(conn, "test.happened", MappingProxyType({"x": (1,)}), 5))
    assert entry == audit.head()
    assert audit.verify().problems == ()


def test_an_entry_of_a_failed_transaction_is_gone(ledger: Database, audit: AuditChain) -> None:
    def job(conn) -> None:
        audit.append(conn, "test.happened", {}, 1.0)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        ledger.write(job)
    assert audit.head() is None


@pytest.mark.parametrize("event", ["", "noun", "Noun.verbed", 'a.b","x":"', "a.b.c", "a.b\n"])
def test_events_are_named_noun_verb_past(ledger: Database, audit: AuditChain, event: str) -> None:
    with pytest.raises(ValueError, match=r"noun\.verb_past"):
        ledger.write(lambda conn: audit.append(conn, event, {}, 1.0))


@pytest.mark.parametrize("at", [math.nan, math.inf])
def test_a_time_that_is_no_time_is_refused(ledger: Database, audit: AuditChain, at: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.write(lambda conn: audit.append(conn, "test.happened", {}, at))


def test_entries_come_in_pages(ledger: Database, audit: AuditChain) -> None:
    grow(ledger, audit, 5)
    assert [entry.seq for entry in audit.entries(after=2, limit=2)] == [3, 4]
    assert audit.entries(after=5) == []


def test_an_honest_chain_longer_than_a_page_verifies(ledger: Database, audit: AuditChain) -> None:
    grow(ledger, audit, 4100)
    head = audit.head()
    report = audit.verify(expected_head=audit.entries(after=99, limit=1)[0].hash)
    assert (report.num_entries, report.head, report.problems) == (4100, head.hash, ())


@dataclass(frozen=True)
class Case:
    sql: str
    problem: str


CASES = {
    "body edited": Case("UPDATE audit SET body = replace(body, '2', '9') WHERE seq = 3", "entry 3 was edited"),
    "time edited": Case("UPDATE audit SET created_at = created_at + 1e-6 WHERE seq = 3", "entry 3 was edited"),
    "event edited": Case("UPDATE audit SET event = 'test.undone' WHERE seq = 3", "entry 3 was edited"),
    "hash edited": Case("UPDATE audit SET hash = 'f' || substr(hash, 2) WHERE seq = 3", "entry 3 was edited"),
    "space added": Case("UPDATE audit SET body = body || ' ' WHERE seq = 3", "entry 3 was edited"),
    "not utf-8": Case("UPDATE audit SET body = CAST(x'ff' AS TEXT) WHERE seq = 3", "entry 3 was edited"),
    "middle deleted": Case("DELETE FROM audit WHERE seq = 3", "entries missing between 2 and 4"),
    "first deleted": Case("DELETE FROM audit WHERE seq = 1", "entries missing between 0 and 2"),
    "renumbered over a gap": Case(
        "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3", "entry 3 does not follow"
    ),
    "swapped": Case(
        "UPDATE audit SET seq = -3 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; "
        "UPDATE audit SET seq = 4 WHERE seq = -3",
        "entry 3 does not follow",
    ),
    "one put before the first": Case(
        "INSERT INTO audit SELECT 0, created_at, event, body, prev_hash, hash FROM audit WHERE seq = 1",
        "entries missing",
    ),
    "one put behind the last": Case(
        "INSERT INTO audit SELECT 7, created_at, event, body, prev_hash, hash FROM audit WHERE seq = 6",
        "entry 7 was edited",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_tampering_is_found_and_the_entry_named(
    ledger: Database, audit: AuditChain, tamper: Tamper, case: Case
) -> None:
    grow(ledger, audit, 6)
    assert audit.verify().problems == ()
    for statement in case.sql.split("; "):
        tamper(statement)
    assert case.problem in "\n".join(audit.verify().problems)


def test_an_edit_with_its_hash_made_to_fit_shows_at_the_next_entry(
    ledger: Database, audit: AuditChain, tamper: Tamper
) -> None:
    grow(ledger, audit, 4)
    old = audit.entries()[1]
    rest = {"seq": 2, "created_at": old.created_at, "event": old.event, "body": {"n": "forged"}}
    forged = hashlib.sha256(old.prev_hash.encode() + canonical_json(rest)).hexdigest()
    tamper("UPDATE audit SET body = ?, hash = ? WHERE seq = 2", ['{"n":"forged"}', forged])
    assert audit.verify().problems == ("entry 3 does not follow entry 2",)


def test_a_cut_end_is_found_only_with_a_head_kept_elsewhere(
    ledger: Database, audit: AuditChain, tamper: Tamper
) -> None:
    grow(ledger, audit, 6)
    kept = audit.head().hash
    assert audit.verify(expected_head=kept).problems == ()
    tamper("DELETE FROM audit WHERE seq > 4")
    assert audit.verify().problems == ()
    assert kept in "\n".join(audit.verify(expected_head=kept).problems)
    tamper("DELETE FROM audit")
    assert kept in "\n".join(audit.verify(expected_head=kept).problems)


def test_an_older_head_is_still_in_a_chain_that_grew(ledger: Database, audit: AuditChain) -> None:
    grow(ledger, audit, 3)
    kept = audit.head().hash
    grow(ledger, audit, 3)
    assert audit.verify(expected_head=kept).problems == ()
    assert audit.verify(expected_head=GENESIS).problems == ()


def test_a_rewritten_schema_that_lets_anything_in_is_reported_not_raised(
    ledger: Database, audit: AuditChain, tamper: Tamper
) -> None:
    grow(ledger, audit, 3)
    tamper("CREATE TABLE copy (seq, created_at, event, body, prev_hash, hash)")
    tamper("INSERT INTO copy SELECT * FROM audit")
    tamper("UPDATE copy SET body = NULL, created_at = 'noon' WHERE seq = 2")
    tamper("DROP TABLE audit")
    tamper("ALTER TABLE copy RENAME TO audit")
    assert "entry 2 was edited" in audit.verify().problems
    tamper("DROP TABLE audit")
    assert "unreadable after entry 0" in audit.verify().problems[0]


def test_problems_are_listed_up_to_a_limit_and_counted_beyond(
    ledger: Database, audit: AuditChain, tamper: Tamper
) -> None:
    grow(ledger, audit, 150)
    tamper("UPDATE audit SET body = '{}'")
    problems = audit.verify().problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "and 50 more"


def test_verifying_reads_fifty_thousand_entries_a_second_even_on_a_busy_machine(
    ledger: Database, audit: AuditChain
) -> None:
    grow(ledger, audit, 20_000)
    started = time.process_time()
    assert audit.verify().problems == ()
    assert time.process_time() - started < 0.4


def test_a_chain_can_be_verified_read_only(ledger: Database, audit: AuditChain) -> None:
    grow(ledger, audit, 3)
    other = Database.open_read_only(Path(ledger.path))
    assert AuditChain(other).verify(expected_head=audit.head().hash).problems == ()
    with pytest.raises(StoreError):
        grow(other, AuditChain(other), 1)
    other.close()
