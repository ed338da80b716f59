"""Ledger rows and the digests that the audit chain holds of them: put down together, and compared both ways.

The chain alone can't see a row slipped in or taken out beside it. Run `AuditChain.verify` first: `compare` trusts it.
"""

from collections.abc import Iterator

from store.audit import AuditChain, digest
from store.connection import Connection
from store.database import Database
from store.records import Json
from store.rows import Row, fetch, insert

TABLES = (
    "checkpoints",
    "evaluations",
    "verdicts",
    "operators",
    "approvals",
    "promotions",
    "api_keys",
    "api_key_revocations",
)


def record(conn: Connection, audit: AuditChain, table: str, row: Row, event: str, body: Json) -> None:
    """The row and the audit entry that holds its digest, in one transaction."""
    insert(conn, table, row)
    # Read back, because the digest must be of what SQLite made of the values.
    (stored,) = fetch(conn, f"SELECT * FROM {table} WHERE rowid = last_insert_rowid()")  # noqa: S608
    audit.append(conn, event, {**body, "row": digest(stored)}, row["created_at"])


def compare(db: Database, audit: AuditChain) -> tuple[str, ...]:
    """One line for each row without an entry and each entry without its row; empty when all agree."""
    missing = dict(_witnessed(audit))
    problems = []
    for table in TABLES:
        with db.read() as conn:
            rows = fetch(conn, f"SELECT * FROM {table}")  # noqa: S608 - the names above
        for row in rows:
            if missing.pop(digest(row), None) is None:
                problems.append(f"{table} row {row.get('seq') or row['id']} was added or edited behind the audit chain")
    problems += [f"the row that audit entry {seq} ({event}) witnessed is gone" for seq, event in missing.values()]
    return tuple(problems)


def _witnessed(audit: AuditChain) -> Iterator[tuple[str, tuple[int, str]]]:
    after = 0
    while page := audit.entries(after=after):
        for entry in page:
            if "row" in entry.body:
                yield entry.body["row"], (entry.seq, entry.event)
        after = page[-1].seq
