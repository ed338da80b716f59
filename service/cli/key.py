"""`honed key`"""

import click

from service.cli.common import client, emit, in_path, json_option, table, when
from service.cli.terminal import line


@click.group()
def command() -> None:
    """Manage who may ask over the network. On loopback no key is needed unless HONED_API_KEYS is on."""


@command.command("add")
@click.argument("principal")
@json_option
def add(principal: str, as_json: bool) -> None:
    """Make a key for PRINCIPAL, the name that the log will have for whoever uses it. It is shown once.

    Example: honed key add alice
    """
    made = client().post("/operator/keys", {"principal": principal})

    def text() -> None:
        click.echo(made["key"])
        click.echo(
            f"This is key {made['id']} of {principal}; it is kept only as a digest and not shown again.", err=True
        )

    emit(made, as_json, text)


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the valid keys.

    Example: honed key list
    """
    found = client().get("/operator/keys")["keys"]
    rows = [[key["id"], key["principal"], when(key["created_at"])] for key in found]
    emit(found, as_json, lambda: table(None, ["key", "principal", "since"], rows))


@command.command("revoke")
@click.argument("key_id", metavar="KEY")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Make KEY, an id from `honed key list`, open nothing any more.

    Example: honed key revoke 1f0c9a2e
    """
    gone = client().post(f"/operator/keys/{in_path(key_id)}/revoke", {})
    emit(gone, as_json, lambda: click.echo(line(f"Key {gone['id']} of {gone['principal']} opens nothing any more.")))
