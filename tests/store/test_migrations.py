"""The schema from nothing, step by step with rows in it, and what its triggers hold against."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlite_utils

from store import migrations
from store.audit import AuditChain
from store.comparisons import Comparisons
from store.connection import StoreError, connect
from store.database import Connection, Database
from store.interactions import NEWEST_LENGTH, Interactions
from store.labels import Labels
from store.pool import Pool
from store.registry import Registry
from store.runs import Runs

SETS = {"honed.db": migrations.log, "ledger.db": migrations.ledger}
APPEND_ONLY = {
    "honed.db": ["interactions", "feedback", "snapshots", "comparisons"],
    "ledger.db": ["audit", "checkpoints", "evaluations", "verdicts", "operators", "approvals", "promotions"],
}
TABLES = [(file, table) for file, tables in APPEND_ONLY.items() for table in tables]


def steps(migration_set: sqlite_utils.Migrations) -> list[str]:
    return [step.name for step in migration_set.pending(sqlite_utils.Database(memory=True))]


def schema(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as conn:
        rows = conn.execute(
            "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE '%sqlite%' ORDER BY name"
        ).fetchall()
    conn.close()
    return rows


@pytest.fixture
def full(tmp_path: Path, make) -> Path:
    """Both files with at least one row in every table."""
    log, ledger = (Database(tmp_path / name, migration_set) for name, migration_set in SETS.items())
    interactions = Interactions(log)
    interactions.append(make.interaction())
    interactions.add_feedback(make.feedback())
    interactions.add_score("i1", [1.0, 0.0], 0.5, 0.5, 101.0, question=7, uncertainty=0.5)
    Pool(log).keep_to("a signal", lambda tokens: 0.5)
    interactions.append(make.interaction("i0", reply="Another answer."))
    Comparisons(log).add(make.comparison())
    Labels(log).add(make.task())
    Runs(log).add_snapshot(make.snapshot())
    Runs(log).create(make.run())
    fill_ledger(ledger, make)
    log.close()
    ledger.close()
    return tmp_path


def fill_ledger(ledger: Database, make) -> Registry:
    registry = Registry(ledger, AuditChain(ledger))
    registry.add_checkpoint(make.checkpoint())
    registry.add_evaluation(make.evaluation())
    registry.add_verdict(make.verdict())
    registry.add_operator(make.operator())
    registry.add_approval(make.approval())
    registry.promote(
        checkpoint_id="aaaa1",
        previous_id="base",
        kind="promote",
        actor="ann",
        reason="better",
        approval_ids=["n1"],
        at=440.0,
        expected_champion="base",
        base_id="base",
    )
    return registry


@pytest.mark.parametrize("file", SETS)
def test_opening_again_changes_nothing(full: Path, file: str) -> None:
    before = schema(full / file)
    Database(full / file, SETS[file]).close()
    assert schema(full / file) == before


@pytest.mark.parametrize(("file", "stop"), [(file, stop) for file in SETS for stop in steps(SETS[file])])
def test_every_earlier_schema_comes_up_to_date_with_its_rows_kept(
    full: Path, tmp_path: Path, file: str, stop: str
) -> None:
    old = tmp_path / f"old-{file}"
    conn = connect(old)
    SETS[file].apply(conn, stop_before=stop)
    conn.execute("ATTACH DATABASE ? AS source", [str(full / file)])
    conn.execute("PRAGMA foreign_keys=OFF")
    tables = [r[0] for r in conn.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()]
    tables = [name for name in tables if not name.startswith("_") and not name.startswith("sqlite_")]
    for table in tables:
        columns = ", ".join(f'"{row[1]}"' for row in conn.execute(f"PRAGMA main.table_info({table})").fetchall())
        conn.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM source.{table}")  # noqa: S608
    conn.close()
    Database(old, SETS[file]).close()
    assert schema(old) == schema(full / file)
    with sqlite3.connect(old) as raw:
        assert all(raw.execute(f"SELECT count(*) FROM {table}").fetchone()[0] > 0 for table in tables)  # noqa: S608
    raw.close()


def test_a_file_of_a_newer_version_is_refused_and_named(full: Path) -> None:
    conn = connect(full / "honed.db")
    migrations.log._record_applied(conn, "m999_future")
    conn.close()
    with pytest.raises(StoreError, match=r"honed\.db .*m999_future"):
        Database(full / "honed.db", migrations.log)


def test_a_failing_step_leaves_the_file_as_it_was(full: Path) -> None:
    broken = sqlite_utils.Migrations("log")
    for step in migrations.log._migrations:
        broken(name=step.name)(step.fn)

    @broken()
    def m900_half(db: Connection) -> None:
        db.execute("CREATE TABLE half (id INTEGER)")
        db.execute("CREATE TABLE interactions (id INTEGER)")

    before = schema(full / "honed.db")
    with pytest.raises(StoreError, match="unchanged"):
        Database(full / "honed.db", broken)
    assert schema(full / "honed.db") == before


@pytest.mark.parametrize(("file", "table"), TABLES)
@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
def test_append_only_rows_hold_against_any_connection(
    full: Path, file: str, table: str, recursive_triggers: str
) -> None:
    conn = sqlite3.connect(full / file, isolation_level=None)
    conn.execute(f"PRAGMA recursive_triggers={recursive_triggers}")
    before = conn.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    assert before
    column = [row[1] for row in conn.execute(f"PRAGMA table_info({table})").fetchall()][-1]
    for statement in (
        f"UPDATE {table} SET {column} = {column}",  # noqa: S608
        f"DELETE FROM {table}",  # noqa: S608
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",  # noqa: S608
        f"REPLACE INTO {table} SELECT * FROM {table}",  # noqa: S608
        f"INSERT OR IGNORE INTO {table} SELECT * FROM {table}",  # noqa: S608
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            conn.execute(statement)
    assert conn.execute(f"SELECT * FROM {table}").fetchall() == before  # noqa: S608
    conn.close()


def test_replacing_under_a_fresh_number_is_blocked_too(full: Path) -> None:
    conn = sqlite3.connect(full / "ledger.db", isolation_level=None)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        conn.execute(
            """INSERT OR REPLACE INTO approvals
               SELECT 99, id, created_at, checkpoint_id, 'reject', key_id, operator, reason, expires_at, envelope
               FROM approvals"""
        )
    conn.close()


def test_runs_that_are_over_and_resolved_tasks_hold_in_the_file_itself(full: Path) -> None:
    conn = sqlite3.connect(full / "honed.db", isolation_level=None)
    conn.execute("UPDATE runs SET state = 'failed'")
    conn.execute("UPDATE labels SET state = 'skipped'")
    for statement in ("UPDATE runs SET state = 'queued'", "UPDATE labels SET state = 'open'"):
        with pytest.raises(sqlite3.IntegrityError, match="does not change"):
            conn.execute(statement)
    for statement in ("DELETE FROM runs", "DELETE FROM labels"):
        with pytest.raises(sqlite3.IntegrityError, match="not deleted"):
            conn.execute(statement)
    conn.close()


def test_the_ledger_stands_without_the_chat_log(full: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(full / "ledger.db", alone)
    ledger = Database(alone / "ledger.db", migrations.ledger)
    assert Registry(ledger, AuditChain(ledger)).champion("base") == "aaaa1"
    ledger.close()


def test_what_was_scored_and_asked_before_there_were_arms_stays_in_the_pool(full: Path, make) -> None:
    old = full / "old.db"
    conn = connect(old)
    migrations.log.apply(conn, stop_before="m005_asking")
    conn.execute("ATTACH DATABASE ? AS source", [str(full / "honed.db")])
    for table in ("interactions", "embeddings"):
        conn.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")  # noqa: S608
    conn.execute("INSERT INTO labels VALUES ('t1', 'i1', 1.0, 0.5, 'unsure', 'open', NULL)")
    conn.close()
    log = Database(old, migrations.log)
    columns = Pool(log).columns()
    assert (columns.seq.tolist(), columns.uncertainty.tolist(), columns.principals) == ([1], [0.875], ("ann",))
    assert (columns.question.tolist(), columns.is_open.tolist()) == ([-1], [False])
    assert Labels(log).get("t1").arm is None
    log.close()


def test_queries_use_their_indexes(log: Database) -> None:
    def plan(sql: str) -> str:
        with log.read() as conn:
            return " ".join(str(row[3]) for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall())

    confident = """SELECT * FROM interactions WHERE checkpoint_id = 'c' AND uncertainty IS NOT NULL
                   AND finish_reason = 'stop' ORDER BY uncertainty, seq LIMIT 5"""
    assert "interactions_confident" in plan(confident)
    assert "TEMP B-TREE" not in plan(confident)
    assert "labels_open" in plan(
        "SELECT * FROM labels WHERE state = 'open' ORDER BY score DESC, created_at, id LIMIT 5"
    )
    assert "feedback_interaction" in plan("SELECT * FROM feedback WHERE interaction_id = 'i' ORDER BY seq")
    assert "labels_added" in plan("SELECT count(*) FROM labels WHERE created_at >= 5")
    unscored = """SELECT * FROM interactions WHERE finish_reason IN ('stop', 'length')
                  AND seq > (SELECT coalesce(max(seq), 0) FROM pool) ORDER BY seq LIMIT 5"""
    assert "interactions_scorable (seq>?)" in plan(unscored) or "INTEGER PRIMARY KEY (rowid>?)" in plan(unscored)
    assert "TEMP B-TREE" not in plan(unscored)
    recent = "SELECT uncertainty FROM pool WHERE checkpoint_id = 'c' ORDER BY seq DESC LIMIT 5"
    assert "TEMP B-TREE" not in plan(NEWEST_LENGTH)
    assert "pool_checkpoint" in plan(recent)
    assert "TEMP B-TREE" not in plan(recent)
