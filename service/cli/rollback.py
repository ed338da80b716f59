"""`honed rollback`"""

import time
from typing import Any

import click

from service import exits
from service.cli.common import client, emit, json_option, paths, short
from service.cli.errors import CommandError
from service.cli.ledger import RESTORE
from service.client import NoDaemon


@click.command()
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes on record.")
@json_option
def command(reason: str, as_json: bool) -> None:
    """Go back to what answered before the champion. One command, no quorum, no network; also with the daemon down.

    Example: honed rollback --reason "answers got worse"
    """
    try:
        result = client().post("/operator/rollback", {"reason": reason})
    except NoDaemon:
        result = _without_daemon(reason)
    emit(
        result,
        as_json,
        lambda: click.echo(f"{short(result['champion'])} answers again, instead of {short(result['previous'])}"),
    )


def _without_daemon(reason: str) -> dict[str, Any]:
    """Write the row ourselves, under the lock that a daemon would hold."""
    from policies.engine import shipped
    from service import ledger
    from service.lock import StateInUse, StateLock
    from service.rollback import RollbackRefused, record_rollback, rollback_target
    from store.database import StoreError

    if not paths().ledger.exists():
        raise CommandError(f"{paths().state} holds no ledger; nothing was ever promoted here", exits.NOT_POSSIBLE)
    try:
        with StateLock(paths().lock), ledger.opened(paths()) as book:
            base_id = ledger.pinned_base(book.audit)
            promotion = record_rollback(
                book.registry,
                shipped(),
                base_id=base_id,
                target=rollback_target(book.registry, base_id),
                actor="operator:local",
                reason=reason,
                at=time.time(),
            )
    except (StateInUse, RollbackRefused, LookupError) as error:
        raise CommandError(str(error), exits.NOT_POSSIBLE) from None
    except (StoreError, OSError) as error:
        raise CommandError(f"no rollback: {error}", exits.FAILED, RESTORE) from None
    return {"champion": promotion.checkpoint_id, "previous": promotion.previous_id}
