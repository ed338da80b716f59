"""The queue of questions to people: one per interaction, open until it is resolved once.

What to ask, and how many questions a day, is decided elsewhere.
"""

from collections.abc import Sequence
from typing import Any

from store.comparisons import Comparison, insert_comparison
from store.connection import Connection
from store.database import Database, StoreError
from store.interactions import UnknownInteraction
from store.records import Arm, Feedback, LabelState, LabelTask
from store.rows import fetch, fetch_by_prefix, fetch_number, fetch_one, from_row, insert, to_row


class UnknownLabelTask(StoreError, LookupError):
    """No label task has this id."""


class NotOpen(StoreError):
    """The task was resolved before; `state` says how."""

    def __init__(self, message: str, state: LabelState) -> None:
        super().__init__(message)
        self.state = state


class AlreadyAsked(StoreError):
    """The interaction has a task already, open or resolved."""


class Labels:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, task: LabelTask) -> None:
        def job(conn: Connection) -> None:
            for id_ in filter(None, (task.interaction_id, task.other_id)):
                if conn.execute("SELECT 1 FROM interactions WHERE id = ?", [id_]).fetchone() is None:
                    raise UnknownInteraction(f"no interaction {id_} to ask about")
                if conn.execute("SELECT 1 FROM labels WHERE interaction_id = ? OR other_id = ?", [id_, id_]).fetchone():
                    raise AlreadyAsked(f"interaction {id_} was asked about before; ask once")
            insert(conn, "labels", to_row(task))

        self._db.write(job)

    def get(self, id: str) -> LabelTask | None:  # noqa: A002
        """By its id or a beginning of it that no other task shares."""
        with self._db.read() as conn:
            row = fetch_by_prefix(conn, "labels", id)
        return from_row(LabelTask, row) if row else None

    def for_interaction(self, interaction_id: str) -> LabelTask | None:
        """The task that is about it, alone or as one of two."""
        return self._one(
            "SELECT * FROM labels WHERE interaction_id = ? OR other_id = ?", [interaction_id, interaction_id]
        )

    def open_tasks(self, limit: int) -> list[LabelTask]:
        """Highest score first; of equal ones, the oldest."""
        sql = "SELECT * FROM labels WHERE state = 'open' ORDER BY score DESC, created_at, id LIMIT ?"
        with self._db.read() as conn:
            return [from_row(LabelTask, row) for row in fetch(conn, sql, [limit])]

    def resolve(
        self,
        id: str,  # noqa: A002
        state: LabelState,
        at: float,
        said: Feedback | Comparison | None = None,
    ) -> LabelTask:
        """Close an open task, together with what was said, or neither. UnknownLabelTask, NotOpen."""
        if state is LabelState.OPEN:
            raise ValueError("a task is resolved to what became of it, not to open")

        def job(conn: Connection) -> LabelTask:
            row = fetch_one(conn, "SELECT * FROM labels WHERE id = ?", [id])
            if row is None:
                raise UnknownLabelTask(f"no label task {id}; the label queue has the ids of the open ones")
            if row["state"] != LabelState.OPEN:
                was = LabelState(row["state"])
                raise NotOpen(f"label task {id} is {was} already; give feedback on its interaction instead", was)
            conn.execute("UPDATE labels SET state = ?, resolved_at = ? WHERE id = ?", [str(state), at, id])
            if said is not None:
                _insert(conn, said, from_row(LabelTask, row))
            return from_row(LabelTask, row | {"state": state, "resolved_at": at})

        return self._db.write(job)

    def count_open(self) -> int:
        return self._count("SELECT count(*) FROM labels WHERE state = 'open'", [])

    def count_added_since(self, t: float) -> int:
        return self._count("SELECT count(*) FROM labels WHERE created_at >= ?", [t])

    def count_added_by_person(self, t: float) -> dict[str, int]:
        """Questions since `t` by the person whose interaction they are about."""
        sql = """SELECT i.principal, count(*) FROM labels AS l JOIN interactions AS i ON i.id = l.interaction_id
                 WHERE l.created_at >= ? GROUP BY i.principal"""
        with self._db.read() as conn:
            return {str(person): int(count) for person, count in conn.execute(sql, [t]).fetchall()}

    def count_settled_by_person(self) -> dict[str, tuple[int, int]]:
        """Of the questions about each person's interactions: how many an answer settled, how many were resolved."""
        sql = """SELECT i.principal, sum(l.state IN ('answered', 'right', 'wrong', 'documented', 'compared')), count(*)
                 FROM labels AS l JOIN interactions AS i ON i.id = l.interaction_id
                 WHERE l.state <> 'open' GROUP BY i.principal"""
        with self._db.read() as conn:
            return {str(person): (int(settled), int(count)) for person, settled, count in conn.execute(sql).fetchall()}

    def count_by_arm(self) -> dict[Arm | None, dict[LabelState, int]]:
        """Questions ever, by how they were chosen and how they stand."""
        found: dict[Arm | None, dict[LabelState, int]] = {}
        with self._db.read() as conn:
            rows = conn.execute("SELECT arm, state, count(*) FROM labels GROUP BY arm, state").fetchall()
        for arm, state, count in rows:
            found.setdefault(Arm(arm) if arm else None, {})[LabelState(state)] = int(count)
        return found

    def _one(self, sql: str, parameters: Sequence[Any]) -> LabelTask | None:
        with self._db.read() as conn:
            row = fetch_one(conn, sql, parameters)
        return from_row(LabelTask, row) if row else None

    def _count(self, sql: str, parameters: Sequence[Any]) -> int:
        with self._db.read() as conn:
            return fetch_number(conn, sql, parameters)


def _insert(conn: Connection, said: Feedback | Comparison, task: LabelTask) -> None:
    about = (said.first_id, said.second_id) if isinstance(said, Comparison) else (said.interaction_id, None)
    if about != (task.interaction_id, task.other_id if isinstance(said, Comparison) else None):
        raise ValueError(f"a word on {about[0]} does not answer label task {task.id}")
    if isinstance(said, Comparison):
        insert_comparison(conn, said)
    else:
        insert(conn, "feedback", to_row(said))
