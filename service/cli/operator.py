"""`honed operator`"""

import time
from typing import Any

import click

from policies.operators import introduce
from service import exits, keys
from service.cli.common import client, emit, json_option, table
from service.cli.errors import CommandError
from service.paths import key_directory


@click.group()
def command() -> None:
    """Manage who may approve: people with an Ed25519 key of their own."""


@command.command("add")
@click.argument("name")
@click.option(
    "--introduced-by", metavar="NAME", help="A known operator whose key on this machine vouches for the new one."
)
@json_option
def add(name: str, introduced_by: str | None, as_json: bool) -> None:
    """Make a key for NAME and make them known to the daemon. The first operator introduces themselves; every later one
    needs the signature of one who is known.

    Example: honed operator add alice
    """
    result = introduce_operator(name, introduced_by)
    key = key_directory() / f"{name}.pem"
    emit(result, as_json, lambda: click.echo(f"{name} may approve. The private key is {key}: keep it to yourself."))


def introduce_operator(name: str, introduced_by: str | None) -> dict[str, Any]:
    """Make the key, sign the introduction (with a known operator's key too, if there are any), and send it."""
    directory = key_directory()
    known = client().get("/operator/status")["operators"]
    sponsors = []
    try:
        if known:
            sponsors = [keys.load(introduced_by, directory)[1]]
        signer = keys.create(name, directory)
    except keys.NoKey as error:
        raise CommandError(f"{name} must be introduced by one of {', '.join(known)}: {error}", exits.USAGE) from None
    except FileExistsError:
        raise CommandError(f"{directory / name}.pem exists; take another name or move it away", exits.USAGE) from None
    envelope = introduce(name, keys.public_hex(signer), time.time(), [signer, *sponsors])
    try:
        return client().post("/operator/operators", {"envelope": envelope})
    except Exception:
        (directory / f"{name}.pem").unlink()  # a key nobody knows is of no use
        raise


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the operators.

    Example: honed operator list
    """
    names = client().get("/operator/status")["operators"]
    emit(names, as_json, lambda: table(None, ["operator"], [[name] for name in names]))
