"""The ledger without a daemon: for going back, checking the record, and writing it out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.paths import Paths
from store.audit import AuditChain
from store.database import Database
from store.migrations import ledger as schema
from store.registry import Registry


@dataclass(frozen=True, slots=True)
class Ledger:
    """The open file, its audit chain and its registry."""

    db: Database
    audit: AuditChain
    registry: Registry


@contextmanager
def opened(paths: Paths) -> Iterator[Ledger]:
    """For writing; the caller holds the state lock."""
    db = Database(paths.ledger, schema)
    try:
        audit = AuditChain(db)
        yield Ledger(db, audit, Registry(db, audit))
    finally:
        db.close()


@contextmanager
def read_only(paths: Paths) -> Iterator[Ledger]:
    """For reading, also beside a running daemon."""
    db = Database.open_read_only(paths.ledger)
    try:
        audit = AuditChain(db)
        yield Ledger(db, audit, Registry(db, audit))
    finally:
        db.close()


def pinned_base(audit: AuditChain) -> str:
    """The base this state directory serves; LookupError before its first start."""
    pinned = audit.newest("base.pinned")
    if pinned is None:
        raise LookupError("no base is on record yet; start the daemon once with `honed serve`")
    return str(pinned.body["base"])
