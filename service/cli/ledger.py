"""The ledger for commands that read it themselves; what is wrong with it is told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from service import exits
from service.cli.common import paths
from service.cli.errors import CommandError

if TYPE_CHECKING:
    from service.ledger import Ledger

RESTORE = "restore ledger.db from a backup if it is damaged"


@contextmanager
def reading() -> Iterator["Ledger"]:
    """Also beside a running daemon."""
    from service import ledger
    from store.database import StoreError

    if not paths().ledger.exists():
        raise CommandError(f"{paths().state} holds no ledger yet", exits.NOT_FOUND, "honed serve")
    try:
        with ledger.read_only(paths()) as book:
            yield book
    except StoreError as error:
        raise CommandError(str(error), exits.FAILED, RESTORE) from None
