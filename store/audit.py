"""The hash chain that witnesses every decision, and the canonical JSON and digests all ids are made of.

It finds edits, gaps and cuts; it can't prevent them. Keep the head outside the database and pass it to `verify`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from store.connection import Connection, SqliteError, StoreError
from store.database import Database
from store.records import AuditEntry, Json

GENESIS = "0" * 64
PAGE = 2000  # rows a read: short reads let the WAL shrink
MAX_PROBLEMS = 100
EVENT_NAME = re.compile(r"[a-z_]+\.[a-z_]+")

_Link = tuple[int, float, bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `verify` found. `head` is the hash of the last entry, `GENESIS` when there is none."""

    num_entries: int
    head: str
    problems: tuple[str, ...]


def canonical_json(obj: Any) -> bytes:
    """The one spelling of `obj`: sorted keys, no spaces, UTF-8. NaN, infinity and lone surrogates raise ValueError."""
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
    return text.encode()


def digest(obj: Any) -> str:
    return hashlib.sha256(canonical_json(obj)).hexdigest()


class AuditChain:
    def __init__(self, db: Database) -> None:
        self._db = db

    def append(self, conn: Connection, event: str, body: Json, at: float) -> AuditEntry:
        """Takes the open transaction, so that the entry and the row it witnesses land together or not at all."""
        if not EVENT_NAME.fullmatch(event):
            raise ValueError(f'an event is named noun.verb_past in lower case, got "{event}"')
        last = conn.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        seq, prev_hash = (last[0] + 1, last[1]) if last else (1, GENESIS)
        at, text = float(at), canonical_json(body)
        entry_hash = _hash(prev_hash.encode(), seq, canonical_json(at), event.encode(), text)
        conn.execute(
            "INSERT INTO audit (seq, created_at, event, body, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?)",
            [seq, at, event, text.decode(), prev_hash, entry_hash],
        )
        return AuditEntry(seq, at, event, json.loads(text), prev_hash, entry_hash)

    def head(self) -> AuditEntry | None:
        with self._db.read() as conn:
            row = conn.execute(f"SELECT {_COLUMNS} FROM audit ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
        return _entry(row) if row else None

    def newest(self, event: str) -> AuditEntry | None:
        """The last entry of one kind."""
        sql = f"SELECT {_COLUMNS} FROM audit WHERE event = ? ORDER BY seq DESC LIMIT 1"  # noqa: S608
        with self._db.read() as conn:
            row = conn.execute(sql, [event]).fetchone()
        return _entry(row) if row else None

    def entries(self, after: int = 0, limit: int = 1000) -> list[AuditEntry]:
        sql = f"SELECT {_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
        with self._db.read() as conn:
            return [_entry(row) for row in conn.execute(sql, [after, limit]).fetchall()]

    def verify(self, expected_head: str | None = None) -> AuditReport:
        """Walks the whole chain. With `expected_head`, kept from earlier, also sees a cut or rewritten end."""
        walk = _Walk(expected_head)
        try:
            for link in self._links():
                walk.step(link)
        except (SqliteError, StoreError) as error:
            walk.report(f"unreadable after entry {walk.seq}: {error}")
        return walk.close()

    def _links(self) -> Iterator[_Link]:
        # As blobs: an edit may have left text that isn't UTF-8, and that must be reported, not raised.
        sql = (
            "SELECT seq, created_at, CAST(event AS BLOB), CAST(body AS BLOB), CAST(prev_hash AS BLOB), "
            "CAST(hash AS BLOB) FROM audit WHERE seq > ? ORDER BY seq LIMIT ?"
        )
        after: int | None = -(2**63)
        while after is not None:
            with self._db.read() as conn:
                page: list[_Link] = conn.execute(sql, [after, PAGE]).fetchall()
            yield from page
            after = page[-1][0] if page else None


class _Walk:
    """The state of one verification."""

    def __init__(self, expected_head: str | None) -> None:
        self.seq = 0
        self._hash = GENESIS.encode()
        self._expected = expected_head.encode() if expected_head else None
        self._is_expected_seen = self._expected in (None, self._hash)
        self._num_entries = 0
        self._problems: list[str] = []
        self._num_unlisted = 0

    def step(self, link: _Link) -> None:
        seq, created_at, event, body, prev_hash, entry_hash = link
        if seq != self.seq + 1:
            self.report(f"entries missing between {self.seq} and {seq}")
        if prev_hash != self._hash:
            self.report(f"entry {seq} does not follow entry {self.seq}")
        if None in link or entry_hash != _hash(prev_hash, seq, repr(created_at).encode(), event, body).encode():
            self.report(f"entry {seq} was edited")
        if entry_hash == self._expected:
            self._is_expected_seen = True
        self.seq, self._hash = seq, entry_hash
        self._num_entries += 1

    def report(self, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem)
        else:
            self._num_unlisted += 1

    def close(self) -> AuditReport:
        problems = list(self._problems)
        if self._num_unlisted:
            problems.append(f"and {self._num_unlisted} more")
        if self._expected is not None and not self._is_expected_seen:
            problems.append(f"head {self._expected.decode()} is not in the chain: its end was cut off or rewritten")
        head = self._hash.decode(errors="replace") if self._hash is not None else ""
        return AuditReport(self._num_entries, head, tuple(problems))


_COLUMNS = "seq, created_at, event, body, prev_hash, hash"


def _hash(prev_hash: bytes, seq: int, created_at: bytes, event: bytes, body: bytes) -> str:
    """Over `prev_hash` and the canonical JSON of the rest, put together from parts that are canonical already."""
    rest = b'{"body":%b,"created_at":%b,"event":"%b","seq":%d}' % (body, created_at, event, seq)
    return hashlib.sha256(prev_hash + rest).hexdigest()


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    seq, created_at, event, body, prev_hash, entry_hash = row
    return AuditEntry(seq, created_at, event, json.loads(body), prev_hash, entry_hash)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in canonical JSON: {value!r}")
