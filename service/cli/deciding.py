"""What `honed approve` and `honed reject` share: look, ask, sign, send."""

import secrets
import time
from typing import Any

import click

from policies.statement import Statement, sign
from service import exits, keys
from service.cli import review as reviewing
from service.cli.common import client
from service.cli.errors import CommandError
from service.paths import key_directory
from store.records import Decision

DAY_SECONDS = 86_400


def decide(
    checkpoint: str,
    decision: Decision,
    *,
    reason: str,
    operator: str | None,
    days: float,
    is_sure: bool,
    is_quiet: bool,
) -> dict[str, Any]:
    """Sign and send one decision; the daemon's answer. Refusals exit with their own codes."""
    review = reviewing.fetch(checkpoint)
    reviewing.require_measured(review)
    if not is_quiet:
        reviewing.show(review)
    if not is_sure:
        click.confirm(f"{decision.value} {review['checkpoint'][:12]}?", abort=True)
    try:
        name, signer = keys.load(operator, key_directory())
    except keys.NoKey as error:
        raise CommandError(str(error), exits.USAGE) from None
    statement = make_statement(review["binds"], decision, reason, name, str(signer.public_key.keyid), time.time(), days)
    return client().post("/operator/decide", {"envelope": sign(statement, signer)})


def make_statement(
    binds: dict[str, str], decision: Decision, reason: str, operator: str, key_id: str, now: float, days: float
) -> Statement:
    """The decision bound to everything that was looked at."""
    try:
        return Statement(
            **binds,
            decision=decision,
            reason=reason,
            operator=operator,
            key_id=key_id,
            nonce=secrets.token_hex(16),
            issued_at=now,
            expires_at=now + days * DAY_SECONDS,
        )
    except ValueError as error:
        raise CommandError(str(error), exits.USAGE) from None
