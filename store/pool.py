"""The scored answers as columns, for choosing which to ask about: narrow, so that a million fit in memory.

What is worth asking is decided elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from store.connection import Connection
from store.database import Database
from store.interactions import CHUNK as VECTOR_CHUNK
from store.interactions import NEWEST_LENGTH, VECTOR, Vectors, unpack
from store.records import TokenTrace
from store.rows import fetch_number

CHUNK = 50_000
MAX_VARIABLES = 500
NARROW = """SELECT seq, uncertainty, checkpoint_id, principal, question, is_askable FROM pool
            WHERE seq > ? ORDER BY seq LIMIT ?"""
TRACES = """SELECT p.seq, i.tokens FROM pool AS p JOIN interactions AS i ON i.seq = p.seq
            WHERE p.seq > ? ORDER BY p.seq LIMIT ?"""
NEWEST = "SELECT seq FROM pool ORDER BY seq DESC LIMIT ?"
TAKEN = """SELECT interaction_id AS id FROM labels UNION SELECT other_id FROM labels WHERE other_id IS NOT NULL
           UNION SELECT interaction_id FROM feedback
           UNION SELECT first_id FROM comparisons UNION SELECT second_id FROM comparisons"""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """One place an answer (N), oldest first. `checkpoint` and `principal` are places in the lists of their names."""

    seq: Ints
    uncertainty: npt.NDArray[np.float64]  # nats; NaN when no token was made
    checkpoint: npt.NDArray[np.int32]
    principal: npt.NDArray[np.int32]
    question: Ints  # the same key is the same question
    is_open: npt.NDArray[np.bool_]  # not empty, and its question neither asked about nor judged
    checkpoints: tuple[str, ...]
    principals: tuple[str, ...]


class _Names:
    """Numbers for names, in the order in which they come."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def of(self, names: Sequence[str]) -> npt.NDArray[np.int32]:
        found = (self.numbers.setdefault(name, len(self.numbers)) for name in names)
        return np.fromiter(found, dtype=np.int32, count=len(names))


class Pool:
    def __init__(self, db: Database) -> None:
        self._db = db

    def keep_to(self, name: str, signal: Callable[[Sequence[TokenTrace]], float | None]) -> int:
        """Let every uncertainty be of this signal, working those of another one out again; returns how many. What is on
        another scale can't be ranked beside the rest.
        """
        with self._db.read() as conn:
            held = conn.execute("SELECT name FROM pool_signal").fetchone()
        if held == (name,):
            return 0
        count = 0
        for rows in self._db.chunks(TRACES, VECTOR_CHUNK):
            fresh = [(signal(unpack(tokens)), int(seq)) for seq, tokens in rows]
            self._db.write(partial(_refill, fresh))
            count += len(fresh)
        self._db.write(partial(_name, name))  # last: a daemon that is killed before begins again
        return count

    def forget(self) -> int:
        """Take every score back, the newest first, so that all answers are scored again; returns how many. A daemon
        that is killed before the end leaves the oldest, which it begins with.
        """
        count = 0
        while num_gone := self._db.write(_forget):
            count += num_gone
        return count

    def columns(self) -> Columns:
        checkpoints, principals = _Names(), _Names()
        parts: list[tuple[npt.NDArray[np.generic], ...]] = [_columns([], checkpoints, principals)]
        parts += [_columns(rows, checkpoints, principals) for rows in self._db.chunks(NARROW, CHUNK)]
        seq, uncertainty, checkpoint, principal, question, is_askable = map(np.concatenate, zip(*parts, strict=True))
        is_taken = np.isin(seq, self._taken())
        is_open = is_askable & ~np.isin(question, question[is_taken])
        names = tuple(checkpoints.numbers), tuple(principals.numbers)
        return Columns(seq, uncertainty, checkpoint, principal, question, is_open, *names)

    def recent_uncertainties(self, checkpoint_id: str, limit: int) -> list[float]:
        sql = """SELECT uncertainty FROM pool WHERE checkpoint_id = ? AND uncertainty IS NOT NULL
                 ORDER BY seq DESC LIMIT ?"""
        with self._db.read() as conn:
            return [float(row[0]) for row in conn.execute(sql, [checkpoint_id, limit]).fetchall()]

    def vectors(self, seqs: Sequence[int], dim: int) -> Vectors:
        """(N, `dim`) in the order of `seqs`, which may name one twice; zeros where there is none of this length."""
        each, places = np.unique(np.array(seqs, dtype=np.int64), return_inverse=True)
        found = np.zeros((len(each), dim), dtype=np.float32)
        for start in range(0, len(each), MAX_VARIABLES):
            part = each[start : start + MAX_VARIABLES].tolist()
            sql = f"""SELECT i.seq, e.vector FROM interactions AS i JOIN embeddings AS e ON e.interaction_id = i.id
                      WHERE i.seq IN ({", ".join("?" * len(part))})"""  # noqa: S608 - question marks alone
            with self._db.read() as conn:
                rows = conn.execute(sql, part).fetchall()
            for seq, vector in rows:
                if len(vector) == dim * VECTOR.itemsize:
                    found[np.searchsorted(each, seq)] = np.frombuffer(vector, dtype=VECTOR)
        return np.asarray(found[places], dtype=np.float32)

    def dim(self) -> int | None:
        """The length of the newest vector; None before the first."""
        with self._db.read() as conn:
            row = conn.execute(NEWEST_LENGTH).fetchone()
        return row[0] // VECTOR.itemsize if row else None

    def embedded(self, dim: int) -> Iterator[tuple[Ints, Vectors, npt.NDArray[np.float64]]]:
        """Numbers (N), vectors (N, `dim`) and novelty (N) of all with a vector of this length, chunk by chunk."""
        sql = """SELECT e.rowid, i.seq, e.vector, e.novelty FROM embeddings AS e
                 JOIN interactions AS i ON i.id = e.interaction_id WHERE e.rowid > ? ORDER BY e.rowid LIMIT ?"""
        for chunk in self._db.chunks(sql, VECTOR_CHUNK):
            rows = [row for row in chunk if len(row[2]) == dim * VECTOR.itemsize]
            flat = np.frombuffer(b"".join(row[2] for row in rows), dtype=VECTOR).astype(np.float32)
            seqs = np.array([row[1] for row in rows], dtype=np.int64)
            yield seqs, flat.reshape(-1, dim), np.array([row[3] for row in rows], dtype=np.float64)

    def is_taken(self, interaction_id: str) -> bool:
        """Asked about before, or judged without being asked; alone or as one of two."""
        sql = f"SELECT EXISTS (SELECT 1 FROM ({TAKEN}) WHERE id = ?)"  # noqa: S608 - a constant
        with self._db.read() as conn:
            return bool(fetch_number(conn, sql, [interaction_id]))

    def recently_taken(self, limit: int) -> list[int]:
        """Of the answers that were asked about or judged, alone or as one of two, the newest."""
        return [int(seq) for seq in self._taken()[-limit:]]

    def ids(self, seqs: Sequence[int]) -> list[str]:
        """The interactions' ids, in the order of `seqs`."""
        with self._db.read() as conn:
            rows = [conn.execute("SELECT id FROM interactions WHERE seq = ?", [int(s)]).fetchone() for s in seqs]
        return [str(row[0]) for row in rows]

    def _taken(self) -> Ints:
        """Ascending."""
        sql = f"SELECT seq FROM interactions WHERE id IN ({TAKEN}) ORDER BY seq"  # noqa: S608 - a constant
        with self._db.read() as conn:
            return np.array([row[0] for row in conn.execute(sql).fetchall()], dtype=np.int64)


def _refill(fresh: Sequence[tuple[float | None, int]], conn: Connection) -> None:
    for uncertainty, seq in fresh:
        conn.execute("UPDATE pool SET uncertainty = ? WHERE seq = ?", [uncertainty, seq])


def _forget(conn: Connection) -> int:
    conn.execute(
        f"""DELETE FROM embeddings WHERE interaction_id IN (
                SELECT id FROM interactions WHERE seq IN ({NEWEST}))""",  # noqa: S608 - a constant
        [VECTOR_CHUNK],
    )
    gone = conn.execute(f"DELETE FROM pool WHERE seq IN ({NEWEST})", [VECTOR_CHUNK])  # noqa: S608 - a constant
    return int(gone.rowcount)


def _name(name: str, conn: Connection) -> None:
    conn.execute("DELETE FROM pool_signal")
    conn.execute("INSERT INTO pool_signal VALUES (?)", [name])


def _columns(
    rows: Sequence[tuple[Any, ...]], checkpoints: _Names, principals: _Names
) -> tuple[npt.NDArray[np.generic], ...]:
    seq, uncertainty, checkpoint, principal, question, is_askable = zip(*rows, strict=True) if rows else [()] * 6
    return (
        np.array(seq, dtype=np.int64),
        np.array(uncertainty, dtype=np.float64),  # None becomes NaN
        checkpoints.of(checkpoint),
        principals.of(principal),
        np.array(question, dtype=np.int64),
        np.array(is_askable, dtype=np.bool_),
    )
