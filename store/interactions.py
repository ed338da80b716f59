"""Interactions, their scores and the feedback on them: append and query.

What is worth asking or learning is decided elsewhere.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from store.connection import Connection
from store.database import Database, StoreError
from store.records import Feedback, Interaction, TokenTrace
from store.rows import Row, fetch, fetch_by_prefix, fetch_number, from_row, insert, to_row

# id, log-probability, entropy of each token: 12 bytes. Single precision is enough for what the numbers are used for.
TRACE = struct.Struct("<iff")
VECTOR = np.dtype("<f4")
CHUNK = 4096  # vectors read at once
# Of all vectors' length while one embedder made them. By its place: by time, all of them would have to be read.
NEWEST_LENGTH = "SELECT length(vector) FROM embeddings ORDER BY rowid DESC LIMIT 1"

# The last word on an interaction that judges it stands; where none does, the last one.
STANDING = """SELECT coalesce(max(CASE WHEN rating IS NOT NULL OR correction IS NOT NULL OR is_excluded THEN seq END),
              max(seq)) FROM feedback GROUP BY interaction_id"""

Vector = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float32]


class UnknownInteraction(StoreError, LookupError):
    """No interaction has this id."""


class Interactions:
    def __init__(self, db: Database) -> None:
        self._db = db

    def append(self, interaction: Interaction) -> None:
        self.submit(interaction).result()

    def submit(self, interaction: Interaction) -> Future[None]:
        row = to_row(interaction, tokens=pack(interaction.tokens))  # packed here, not on the one writer thread
        return self._db.submit(lambda conn: insert(conn, "interactions", row))

    def get(self, id: str) -> Interaction | None:  # noqa: A002
        return next(iter(self._select("SELECT * FROM interactions WHERE id = ?", id)), None)

    def id_beginning_with(self, text: str) -> str | None:
        """The one interaction or feedback whose id begins so. StoreError where it could be any of several."""
        with self._db.read() as conn:
            rows = [fetch_by_prefix(conn, table, text) for table in ("interactions", "feedback")]
        ids = [str(row["id"]) for row in rows if row is not None]
        if len(ids) > 1 and text not in ids:
            raise StoreError(f'"{text}" could be any of {", ".join(ids)}; give more characters')
        return text if text in ids else next(iter(ids), None)

    def recent(self, limit: int) -> list[Interaction]:
        return self._select("SELECT * FROM interactions ORDER BY seq DESC LIMIT ?", limit)

    def count(self) -> int:
        return self._count("SELECT count(*) FROM interactions")

    def unscored(self, limit: int) -> list[Interaction]:
        """Whole answers without a score, oldest first. They are scored in this order, so all before the last one scored
        have theirs: nobody looks through a million rows every few seconds.
        """
        return self._select(
            """SELECT * FROM interactions WHERE finish_reason IN ('stop', 'length')
               AND seq > (SELECT coalesce(max(seq), 0) FROM pool) ORDER BY seq LIMIT ?""",
            limit,
        )

    def confident(self, checkpoint_id: str, limit: int) -> list[Interaction]:
        """Finished answers of this checkpoint that it was surest of, and that nobody ever objected to."""
        return self._select(
            """SELECT * FROM interactions AS i
               WHERE checkpoint_id = ? AND uncertainty IS NOT NULL AND finish_reason = 'stop' AND NOT EXISTS (
                   SELECT 1 FROM feedback WHERE interaction_id = i.id
                   AND (rating = 'down' OR correction IS NOT NULL OR is_excluded))
               ORDER BY uncertainty, seq LIMIT ?""",
            checkpoint_id,
            limit,
        )

    def vectors_of(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The questions' vectors (dim,) of those that have one of the newest length."""
        marks = ", ".join("?" * len(ids))
        sql = f"""SELECT interaction_id, vector FROM embeddings
                  WHERE interaction_id IN ({marks}) AND length(vector) = ({NEWEST_LENGTH})"""  # noqa: S608 - only marks
        with self._db.read() as conn:
            rows = conn.execute(sql, list(ids)).fetchall()
        return {str(id_): np.frombuffer(vector, dtype=VECTOR) for id_, vector in rows}

    def first_and_last_embedded(self, limit: int) -> list[tuple[Interaction, Vector]]:
        """Those that were scored first and last, so many of each, with their questions' vectors (dim,)."""
        sql = """SELECT i.*, e.vector FROM embeddings AS e JOIN interactions AS i ON i.id = e.interaction_id
                 ORDER BY e.rowid {} LIMIT ?"""
        with self._db.read() as conn:
            rows = [row for order in ("ASC", "DESC") for row in fetch(conn, sql.format(order), [limit])]
        return [(_interaction(row), np.frombuffer(row["vector"], dtype=VECTOR)) for row in rows]

    def judged(self, checkpoint_id: str) -> list[tuple[tuple[TokenTrace, ...], Vector | None, bool]]:
        """Tokens, the question's vector where it has one of the newest length, and whether it is wrong, of each answer
        of this checkpoint that a person called right or wrong; the last word stands. In the order of the judgements.
        """
        sql = f"""SELECT i.tokens, e.vector, f.correction IS NOT NULL OR f.rating = 'down'
                  FROM interactions AS i JOIN feedback AS f ON f.interaction_id = i.id
                  LEFT JOIN embeddings AS e ON e.interaction_id = i.id AND length(e.vector) = ({NEWEST_LENGTH})
                  WHERE i.checkpoint_id = ? AND i.uncertainty IS NOT NULL AND NOT f.is_excluded
                  AND (f.rating IS NOT NULL OR f.correction IS NOT NULL)
                  AND f.seq IN ({STANDING}) ORDER BY f.seq"""  # noqa: S608 - a constant
        with self._db.read() as conn:
            rows = conn.execute(sql, [checkpoint_id]).fetchall()
        return [
            (unpack(tokens), None if vector is None else np.frombuffer(vector, dtype=VECTOR), bool(is_wrong))
            for tokens, vector, is_wrong in rows
        ]

    def judged_checkpoints(self) -> list[str]:
        """Those of whose answers a person called any right or wrong; the one that answered last first."""
        sql = """SELECT i.checkpoint_id FROM interactions AS i JOIN feedback AS f ON f.interaction_id = i.id
                 WHERE NOT f.is_excluded AND (f.rating IS NOT NULL OR f.correction IS NOT NULL)
                 GROUP BY i.checkpoint_id ORDER BY max(i.seq) DESC"""
        with self._db.read() as conn:
            return [str(row[0]) for row in conn.execute(sql).fetchall()]

    def judgements(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Numbers (N,) of the answers that people called right or wrong, and whether each is wrong (N,); the last word
        stands. In the order of the judgements.
        """
        sql = f"""SELECT i.seq, f.correction IS NOT NULL OR f.rating = 'down'
                 FROM feedback AS f JOIN interactions AS i ON i.id = f.interaction_id
                 WHERE NOT f.is_excluded AND (f.rating IS NOT NULL OR f.correction IS NOT NULL)
                 AND f.seq IN ({STANDING}) ORDER BY f.seq"""  # noqa: S608 - a constant
        with self._db.read() as conn:
            rows = conn.execute(sql).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64), np.array([row[1] for row in rows], dtype=np.float64)

    def add_score(
        self,
        interaction_id: str,
        vector: Sequence[float],
        score: float,
        novelty: float,
        at: float,
        *,
        question: int,
        uncertainty: float | None,
    ) -> None:
        """Scores can be worked out again, so a new one takes the place of the old. `question` is a 64-bit key that the
        same question has again: by it the pool counts how often it is asked. `uncertainty` is what the pool ranks by;
        None for an answer without tokens.
        """
        values = [interaction_id, at, np.asarray(vector, dtype=VECTOR).tobytes(), float(score), float(novelty)]

        def job(conn: Connection) -> None:
            _require(conn, interaction_id)
            conn.execute(
                """INSERT INTO embeddings (interaction_id, created_at, vector, score, novelty) VALUES (?, ?, ?, ?, ?)
                   ON CONFLICT (interaction_id) DO UPDATE SET created_at = excluded.created_at,
                   vector = excluded.vector, score = excluded.score, novelty = excluded.novelty""",
                values,
            )
            conn.execute(
                """INSERT OR REPLACE INTO pool SELECT seq, checkpoint_id, principal, ?1, ?2,
                       ?1 IS NOT NULL AND trim(reply, char(9, 10, 13, 32)) <> ''
                   FROM interactions WHERE id = ?3""",
                [uncertainty, question, interaction_id],
            )

        self._db.write(job)

    def vectors(self, dim: int) -> Iterator[tuple[list[str], Vectors]]:
        """Ids and (N, `dim`) arrays, chunk by chunk, in the order in which they were first scored. Vectors of another
        length, which another embedder made, are left out.
        """
        sql = "SELECT rowid, interaction_id, vector FROM embeddings WHERE rowid > ? ORDER BY rowid LIMIT ?"
        for rows in self._db.chunks(sql, CHUNK):
            fitting = [row for row in rows if len(row[2]) == dim * VECTOR.itemsize]
            flat = np.frombuffer(b"".join(vector for _, _, vector in fitting), dtype=VECTOR)
            yield [id_ for _, id_, _ in fitting], flat.reshape(-1, dim).astype(np.float32)

    def add_feedback(self, feedback: Feedback) -> None:
        def job(conn: Connection) -> None:
            _require(conn, feedback.interaction_id)
            insert(conn, "feedback", to_row(feedback))

        self._db.write(job)

    def feedback_for(self, interaction_id: str) -> list[Feedback]:
        """In the order it was given, whatever the clock did."""
        sql = "SELECT * FROM feedback WHERE interaction_id = ? ORDER BY seq"
        with self._db.read() as conn:
            return [from_row(Feedback, row) for row in fetch(conn, sql, [interaction_id])]

    def standing_feedback(self) -> list[tuple[Interaction, Feedback]]:
        """The last word that judges, on each interaction that has one; where none does, the last. In the order of the
        interactions.
        """
        with self._db.read() as conn:
            words = fetch(conn, f"SELECT * FROM feedback WHERE seq IN ({STANDING})")  # noqa: S608 - a constant
            asked = fetch(
                conn, "SELECT * FROM interactions WHERE id IN (SELECT interaction_id FROM feedback) ORDER BY seq"
            )
        standing = {row["interaction_id"]: from_row(Feedback, row) for row in words}
        return [(_interaction(row), standing[row["id"]]) for row in asked]

    def documents(self) -> list[tuple[str, str]]:
        """What people named that settles a question, the last of each, and its interaction's id; the oldest first."""
        sql = """SELECT document, interaction_id FROM feedback WHERE seq IN (
                     SELECT max(seq) FROM feedback WHERE document IS NOT NULL GROUP BY interaction_id) ORDER BY seq"""
        with self._db.read() as conn:
            return [(str(document), str(id_)) for document, id_ in conn.execute(sql).fetchall()]

    def count_feedback(self) -> int:
        return self._count("SELECT count(*) FROM feedback")

    def _select(self, sql: str, *parameters: Any) -> list[Interaction]:
        with self._db.read() as conn:
            rows = fetch(conn, sql, parameters)
        return [_interaction(row) for row in rows]

    def _count(self, sql: str) -> int:
        with self._db.read() as conn:
            return fetch_number(conn, sql)


def pack(tokens: Iterable[TokenTrace]) -> bytes:
    return b"".join(TRACE.pack(token.token_id, token.logprob, token.entropy) for token in tokens)


def unpack(blob: bytes) -> tuple[TokenTrace, ...]:
    return tuple(TokenTrace(*values) for values in TRACE.iter_unpack(blob))


def _interaction(row: Row) -> Interaction:
    return from_row(Interaction, row, tokens=unpack(row["tokens"]))


def _require(conn: Connection, interaction_id: str) -> None:
    if conn.execute("SELECT 1 FROM interactions WHERE id = ?", [interaction_id]).fetchone() is None:
        raise UnknownInteraction(f"no interaction {interaction_id}; `id` of the chat reply names it")
