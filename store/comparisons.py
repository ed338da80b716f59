"""What people said of two answers to one question: append and query."""

from dataclasses import dataclass
from enum import StrEnum

from store.connection import Connection
from store.database import Database
from store.interactions import UnknownInteraction
from store.records import FeedbackSource, Interaction
from store.rows import fetch, fetch_number, from_row, insert, to_row


class Choice(StrEnum):
    """Which of two answers to one question is better."""

    FIRST = "first"
    SECOND = "second"
    NEITHER = "neither"
    UNKNOWN = "unknown"  # "I don't know"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A person's word on two answers of the model to one question. Of one person on one pair, the newest stands."""

    id: str
    first_id: str  # an interaction, as `second_id`
    second_id: str
    created_at: float
    principal: str
    source: FeedbackSource
    choice: Choice


class NotComparable(ValueError):
    """Two interactions that are no answers to one question."""


class Comparisons:
    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, comparison: Comparison) -> None:
        """UnknownInteraction, NotComparable."""
        self._db.write(lambda conn: insert_comparison(conn, comparison))

    def standing(self) -> list[Comparison]:
        """Each person's last word on each pair, whichever way round it was shown; oldest first."""
        sql = """SELECT * FROM comparisons WHERE seq IN (
                     SELECT max(seq) FROM comparisons
                     GROUP BY principal, min(first_id, second_id), max(first_id, second_id)) ORDER BY seq"""
        with self._db.read() as conn:
            return [from_row(Comparison, row) for row in fetch(conn, sql)]

    def count(self) -> int:
        with self._db.read() as conn:
            return fetch_number(conn, "SELECT count(*) FROM comparisons")

    def other_answer(self, interaction: Interaction) -> str | None:
        """The id of the newest other whole answer of the same checkpoint, in other words, to the same conversation."""
        sql = """SELECT b.id FROM interactions AS a JOIN interactions AS b ON b.conversation_id = a.conversation_id
                 WHERE a.id = ? AND b.id <> a.id AND b.checkpoint_id = a.checkpoint_id AND b.messages = a.messages
                 AND b.reply <> a.reply AND b.finish_reason = 'stop' AND trim(b.reply) <> ''
                 ORDER BY b.seq DESC LIMIT 1"""
        with self._db.read() as conn:
            row = conn.execute(sql, [interaction.id]).fetchone()
        return None if row is None else str(row[0])


def insert_comparison(conn: Connection, comparison: Comparison) -> None:
    """Within somebody's transaction. UnknownInteraction, NotComparable."""
    sql = "SELECT messages, reply FROM interactions WHERE id = ?"
    found = []
    for id_ in (comparison.first_id, comparison.second_id):
        row = conn.execute(sql, [id_]).fetchone()
        if row is None:
            raise UnknownInteraction(f"no interaction {id_}; `id` of the chat reply names it")
        found.append(row)
    (asked, said), (asked_too, said_too) = found
    if asked != asked_too or said == said_too:
        raise NotComparable(
            f"{comparison.first_id} and {comparison.second_id} are not two different answers to one question; "
            "compare answers to the same messages"
        )
    insert(conn, "comparisons", to_row(comparison))
