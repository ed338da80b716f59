"""The two databases opened, with what reads and writes them, and the base's digest pinned in the ledger."""

import time
from dataclasses import dataclass

from service.config import Settings
from store.api_keys import ApiKeys
from store.audit import AuditChain
from store.comparisons import Comparisons
from store.database import Database
from store.interactions import Interactions
from store.labels import Labels
from store.migrations import ledger as ledger_schema
from store.migrations import log as log_schema
from store.pool import Pool
from store.registry import Registry
from store.runs import Runs


class PinMoved(RuntimeError):
    """The base on disk is not the one this state directory began with."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Open databases and what reads and writes them."""

    log: Database
    ledger: Database
    audit: AuditChain
    interactions: Interactions
    labels: Labels
    pool: Pool
    comparisons: Comparisons
    runs: Runs
    registry: Registry
    api_keys: ApiKeys

    def close(self) -> None:
        self.log.close()
        self.ledger.close()


def open_stores(settings: Settings) -> Stores:
    """Open and migrate both databases."""
    log_db = Database(settings.paths.log, log_schema)
    ledger_db = Database(settings.paths.ledger, ledger_schema)
    audit = AuditChain(ledger_db)
    return Stores(
        log_db,
        ledger_db,
        audit,
        Interactions(log_db),
        Labels(log_db),
        Pool(log_db),
        Comparisons(log_db),
        Runs(log_db),
        Registry(ledger_db, audit),
        ApiKeys(ledger_db, audit),
    )


def require_pin(stores: Stores, source: str, base_id: str) -> None:
    """A source's base goes on record the first time and must be the same ever after, whatever served in between.
    PinMoved otherwise.
    """
    first = stores.registry.first_pin(source)
    if first not in (None, base_id):
        raise PinMoved(
            f"base {base_id[:12]} is not {str(first)[:12]}, which the ledger pinned first for {source}; "
            "restore STATE/models, or start a new HONED_STATE"
        )
    newest = stores.audit.newest("base.pinned")  # says which base serves here, also with the daemon down
    pin = {"source": source, "base": base_id}
    if newest is None or newest.body != pin:
        stores.registry.note("base.pinned", pin, time.time())
