"""Dataset snapshots and training runs: create, follow, finish.

Whether a run may start, and whether its process still lives, is decided elsewhere.
"""

from collections.abc import Sequence
from typing import Any

from store.connection import Connection
from store.database import Database, StoreError
from store.records import DatasetSnapshot, RunState, TrainingRun
from store.rows import encode, fetch, fetch_by_prefix, fetch_one, from_row, insert, to_row

MUTABLE = (
    "state",
    "attempt",
    "pid",
    "pid_started_at",
    "heartbeat_at",
    "finished_at",
    "checkpoint_id",
    "error",
)


class UnknownRun(StoreError, LookupError):
    """No run has this id."""


class RunIsOver(StoreError):
    """The run ended; its record does not change any more."""


class Runs:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add_snapshot(self, snapshot: DatasetSnapshot) -> None:
        self._db.write(lambda conn: insert(conn, "snapshots", to_row(snapshot)))

    def snapshot(self, id: str) -> DatasetSnapshot | None:  # noqa: A002
        with self._db.read() as conn:
            row = fetch_one(conn, "SELECT * FROM snapshots WHERE id = ?", [id])
        return from_row(DatasetSnapshot, row) if row else None

    def create(self, run: TrainingRun) -> None:
        self._db.write(lambda conn: insert(conn, "runs", to_row(run)))

    def get(self, id: str) -> TrainingRun | None:  # noqa: A002
        """By its id or a beginning of it that no other run shares."""
        with self._db.read() as conn:
            row = fetch_by_prefix(conn, "runs", id)
        return from_row(TrainingRun, row) if row else None

    def recent(self, limit: int) -> list[TrainingRun]:
        return self._select("SELECT * FROM runs ORDER BY seq DESC LIMIT ?", [limit])

    def unfinished(self) -> list[TrainingRun]:
        """Oldest first."""
        return self._select("SELECT * FROM runs WHERE state IN ('queued', 'training', 'evaluating') ORDER BY seq")

    def latest_settled(self) -> TrainingRun | None:
        """The newest that was judged, or that failed again right after another had: what failed once is tried again
        with the same rows, what failed twice waits for new ones.
        """
        sql = """SELECT * FROM runs WHERE state IN ('judged', 'failed', 'interrupted')
                 ORDER BY finished_at DESC, seq DESC LIMIT 2"""
        ended = self._select(sql)
        return next((run for run in ended if run.state is RunState.JUDGED), ended[0] if len(ended) == 2 else None)

    def update(self, id: str, **changes: Any) -> TrainingRun:  # noqa: A002
        """Changes what may change of a run that isn't over."""
        if unknown := sorted(set(changes) - set(MUTABLE)):
            raise StoreError(f"a run's {', '.join(unknown)} cannot change; only {', '.join(MUTABLE)} can")
        if not changes:
            raise StoreError(f"nothing to change of run {id}; name at least one field")
        return self._db.write(lambda conn: _update(conn, id, changes))

    def heartbeat(self, id: str, at: float) -> None:  # noqa: A002
        self.update(id, heartbeat_at=at)

    def _select(self, sql: str, parameters: Sequence[Any] = ()) -> list[TrainingRun]:
        with self._db.read() as conn:
            return [from_row(TrainingRun, row) for row in fetch(conn, sql, parameters)]


def _update(conn: Connection, run_id: str, changes: dict[str, Any]) -> TrainingRun:
    row = fetch_one(conn, "SELECT * FROM runs WHERE id = ?", [run_id])
    if row is None:
        raise UnknownRun(f"no run {run_id}; the list of runs has their ids")
    if (state := RunState(row["state"])).is_over:
        raise RunIsOver(f"run {run_id} is over ({state}); start a new one instead")
    values = {name: encode(value) for name, value in changes.items()}
    changed = from_row(TrainingRun, row | values)  # an impossible state is refused here, before it is stored
    settings = ", ".join(f"{name} = ?" for name in values)
    conn.execute(f"UPDATE runs SET {settings} WHERE id = ?", [*values.values(), run_id])  # noqa: S608
    return changed
