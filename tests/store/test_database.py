"""The writer, its batches and its failures, against real files and a really killed process."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import pytest
import sqlite_utils

from store import migrations
from store.connection import StoreError, check_version, connect
from store.database import Connection, Database
from store.interactions import Interactions
from store.writer import Writer

REPO = Path(__file__).resolve().parents[2]

notes = sqlite_utils.Migrations("notes")


@notes()
def m001_notes(db: Connection) -> None:
    db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT")
    db.execute("CREATE TABLE late (note INTEGER REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED) STRICT")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "notes.db", notes)
    yield opened
    opened.close()


def add(text: str) -> Callable[[Connection], int]:
    return lambda conn: conn.execute("INSERT INTO notes (text) VALUES (?)", [text]).lastrowid


def texts(db: Database) -> list[str]:
    with db.read() as conn:
        return [row[0] for row in conn.execute("SELECT text FROM notes ORDER BY id").fetchall()]


def hold(db: Database) -> tuple[threading.Event, Future[None]]:
    """Keeps the writer busy, so that what is submitted meanwhile lands in one batch."""
    entered, release = threading.Event(), threading.Event()

    def job(_conn: Connection) -> None:
        entered.set()
        release.wait(5)

    future = db.submit(job)
    entered.wait(5)
    return release, future


def test_write_returns_what_the_job_returned_and_others_can_read_it(db: Database) -> None:
    assert db.write(add("one")) == 1
    assert texts(db) == ["one"]


def test_every_pragma_holds_on_the_writing_connection(db: Database) -> None:
    def pragmas(conn: Connection) -> dict[str, object]:
        names = ["journal_mode", "synchronous", "busy_timeout", "foreign_keys", "recursive_triggers", "trusted_schema"]
        names += ["journal_size_limit", "wal_autocheckpoint"]
        return {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    assert db.write(pragmas) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "busy_timeout": 5000,
        "foreign_keys": 1,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "journal_size_limit": 67108864,
        "wal_autocheckpoint": 1000,
    }


def test_the_file_is_readable_by_its_owner_only(db: Database) -> None:
    db.write(add("private"))
    for path in db.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_job_that_raises_undoes_only_itself(db: Database) -> None:
    def half_done(conn: Connection) -> None:
        add("half")(conn)
        raise RuntimeError("on purpose")

    release, _ = hold(db)
    futures = [db.submit(add("before")), db.submit(half_done), db.submit(add("after"))]
    release.set()
    wait(futures, 5)
    with pytest.raises(RuntimeError, match="on purpose"):
        futures[1].result()
    assert texts(db) == ["before", "after"]


def test_jobs_that_arrive_together_share_one_commit(db: Database) -> None:
    release, _ = hold(db)
    futures = [db.submit(add(f"{n}")) for n in range(100)]
    before = db.path.with_name("notes.db-wal").stat().st_size
    release.set()
    wait(futures, 5)
    grown = db.path.with_name("notes.db-wal").stat().st_size - before
    assert len(texts(db)) == 100
    assert grown < 20 * 4200  # alone, each commit writes two pages or more


def test_a_batch_is_never_larger_than_its_limit_and_keeps_the_order(db: Database) -> None:
    release, _ = hold(db)
    futures = [db.submit(add(f"{n:04}")) for n in range(600)]
    release.set()
    wait(futures, 10)
    assert texts(db) == [f"{n:04}" for n in range(600)]


def test_many_threads_write_without_losing_a_row(db: Database) -> None:
    def work(worker: int) -> None:
        for n in range(25):
            db.write(add(f"{worker}-{n}"))

    threads = [threading.Thread(target=work, args=[worker]) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts(db)) == 200


def test_a_future_resolves_only_after_the_commit(db: Database) -> None:
    seen: list[list[str]] = []
    release, _ = hold(db)
    future = db.submit(add("durable"))
    future.add_done_callback(lambda _: seen.append(texts(db)))
    assert texts(db) == []
    release.set()
    future.result(5)
    db.write(lambda conn: None)
    assert seen == [["durable"]]


def test_when_commit_fails_every_job_of_the_batch_is_told_and_the_writer_goes_on(db: Database) -> None:
    release, _ = hold(db)
    innocent = db.submit(add("innocent"))
    culprit = db.submit(lambda conn: conn.execute("INSERT INTO late (note) VALUES (999)") and None)
    release.set()
    for future in (innocent, culprit):
        with pytest.raises(StoreError, match="FOREIGN KEY"):
            future.result(5)
    assert texts(db) == []
    assert db.write(add("next")) == 1


def test_when_a_job_loses_the_transaction_the_whole_batch_is_told(db: Database) -> None:
    release, _ = hold(db)
    earlier = db.submit(add("earlier"))
    rogue = db.submit(lambda conn: conn.execute("ROLLBACK") and None)
    release.set()
    for future in (earlier, rogue):
        with pytest.raises(StoreError, match="transaction"):
            future.result(5)
    assert texts(db) == []
    assert db.write(add("next")) == 1


def test_a_full_disk_is_told_to_the_caller_and_leaves_the_rest_whole(db: Database) -> None:
    db.write(add("kept"))
    pages = db.write(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
    db.write(lambda conn: conn.execute(f"PRAGMA max_page_count={pages}").fetchone() and None)
    with pytest.raises(StoreError, match="full"):
        db.write(add("x" * 100_000))
    assert texts(db) == ["kept"]


def test_the_writer_connects_again_after_it_lost_its_connection(tmp_path: Path) -> None:
    opened: list[Connection] = []

    def counting_connect() -> Connection:
        opened.append(connect(tmp_path / "w.db"))
        return opened[-1]

    writer = Writer(counting_connect, name="test")
    with pytest.raises(StoreError):
        writer.write(lambda conn: conn.execute("COMMIT") and None)
    assert writer.write(lambda conn: conn.execute("SELECT 1").fetchone()[0]) == 1
    writer.close()
    assert len(opened) == 2


def test_sqlite_errors_reach_callers_as_store_errors(db: Database) -> None:
    db.write(add("same"))
    with pytest.raises(StoreError, match="UNIQUE"):
        db.write(add("same"))
    with pytest.raises(StoreError, match="no such table"):
        with db.read() as conn:
            conn.execute("SELECT * FROM nowhere")


def test_a_cancelled_job_is_not_run(db: Database) -> None:
    release, _ = hold(db)
    future = db.submit(add("never"))
    assert future.cancel()
    release.set()
    db.write(add("later"))
    assert texts(db) == ["later"]


def test_writing_inside_a_write_is_refused_instead_of_hanging(db: Database) -> None:
    with pytest.raises(StoreError, match="wait for itself"):
        db.write(lambda _conn: db.write(add("inner")))


def test_readers_cannot_write(db: Database) -> None:
    with pytest.raises(StoreError, match="readonly"):
        with db.read() as conn:
            conn.execute("INSERT INTO notes (text) VALUES ('sneaked')")


def test_a_read_sees_one_moment_even_when_nested(db: Database) -> None:
    db.write(add("one"))
    with db.read() as conn:
        assert conn.execute("SELECT count(*) FROM notes").fetchone()[0] == 1
        db.write(add("two"))
        with db.read() as inner:
            assert inner.execute("SELECT count(*) FROM notes").fetchone()[0] == 1
    assert texts(db) == ["one", "two"]


def test_connections_of_finished_threads_are_closed(db: Database) -> None:
    for _ in range(5):
        thread = threading.Thread(target=lambda: texts(db))
        thread.start()
        thread.join()
    texts(db)
    assert len(db._readers) == 1


def test_close_writes_what_is_queued_and_may_come_twice(tmp_path: Path) -> None:
    db = Database(tmp_path / "notes.db", notes)
    futures = [db.submit(add(f"{n}")) for n in range(50)]
    db.close()
    db.close()
    assert all(future.done() for future in futures)
    with pytest.raises(StoreError, match="closed"):
        db.write(add("late"))
    with pytest.raises(StoreError, match="closed"):
        texts(db)
    again = Database(tmp_path / "notes.db", notes)
    assert len(texts(again)) == 50
    again.close()


def test_read_only_opens_beside_a_writer_and_refuses_to_write(db: Database) -> None:
    db.write(add("one"))
    other = Database.open_read_only(db.path)
    db.write(add("two"))
    assert texts(other) == ["one", "two"]
    with pytest.raises(StoreError, match="reading only"):
        other.write(add("three"))
    with pytest.raises(StoreError, match="reading only"):
        other.submit(add("three"))
    other.close()


def test_read_only_does_not_make_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing\.db"):
        Database.open_read_only(tmp_path / "missing.db")
    assert list(tmp_path.iterdir()) == []


def test_an_old_sqlite_is_refused_with_its_version_and_the_remedy() -> None:
    with pytest.raises(StoreError, match=r"SQLite 3\.51\.2 .*3\.51\.3.*pip install"):
        check_version((3, 51, 2))
    check_version((3, 51, 3))
    check_version()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"not a database, and long enough to look like one" * 100)
    with pytest.raises(StoreError, match=r"notes\.db"):
        Database(path, notes)
    assert path.read_bytes().startswith(b"not a database")


CHILD = """
import sys
from pathlib import Path
from store import migrations
from store.database import Database
from store.interactions import Interactions
from store.records import FinishReason, Interaction, TokenTrace

rows = Interactions(Database(Path(sys.argv[1]), migrations.log))
waiting = []
for n in range(10**9):
    row = Interaction(f"i{n}", "c", float(n), "p", "base", ({"role": "user", "content": "x" * 500},), "y" * 500,
                      FinishReason.STOP, (TokenTrace(1, -1.0, 0.5),) * 50, 3, 0.1, 0.5)
    waiting.append((row.id, rows.submit(row)))
    if len(waiting) > 20:
        name, future = waiting.pop(0)
        future.result()
        print(name, flush=True)
"""


@pytest.mark.parametrize("num_acknowledged", [1, 50, 400])
def test_kill_9_in_mid_write_keeps_every_acknowledged_row(tmp_path: Path, num_acknowledged: int) -> None:
    path = tmp_path / "honed.db"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    with child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(num_acknowledged)]
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read().split("\n")[:-1]
    db = Database.open_read_only(path)  # must see them even before a writer has recovered the file
    assert Interactions(db).count() >= len(acknowledged)
    db.close()
    db = Database(path, migrations.log)
    with db.read() as conn:
        kept = {row[0] for row in conn.execute("SELECT id FROM interactions").fetchall()}
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()
    assert len(acknowledged) >= num_acknowledged
    assert set(acknowledged) <= kept
    assert kept == {f"i{n}" for n in range(len(kept))}  # nothing was skipped either
