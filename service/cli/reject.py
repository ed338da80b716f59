"""`honed reject`"""

import click

from service.cli.common import emit, json_option, short
from service.cli.deciding import decide
from store.records import Decision


@click.command()
@click.argument("checkpoint", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes on record.")
@click.option("--operator", metavar="NAME", help="Whose key signs; not needed when there is one.")
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
def command(checkpoint: str, reason: str, operator: str | None, yes: bool, as_json: bool) -> None:
    """Sign a rejection of the candidate whose id begins with ID: it never serves. What serves already: honed rollback.

    Example: honed reject 3f2a --reason "it forgot the capitals" --yes
    """
    result = decide(
        checkpoint, Decision.REJECT, reason=reason, operator=operator, days=3.0, is_sure=yes, is_quiet=as_json
    )
    emit(result, as_json, lambda: click.echo(f"{short(result['candidate'])} is rejected"))
