"""`honed approve`"""

import click

from service.cli.common import emit, json_option, short
from service.cli.deciding import decide
from store.records import Decision


@click.command()
@click.argument("checkpoint", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it goes on record.")
@click.option("--operator", metavar="NAME", help="Whose key signs; not needed when there is one.")
@click.option(
    "--days",
    type=click.FloatRange(0, 30, min_open=True),
    default=3.0,
    show_default=True,
    help="How long the approval is valid.",
)
@click.option("--yes", is_flag=True, help="Do not ask again.")
@json_option
def command(checkpoint: str, reason: str, operator: str | None, days: float, yes: bool, as_json: bool) -> None:
    """Sign an approval of the candidate whose id begins with ID. With enough approvals it becomes the champion at once.

    Example: honed approve 3f2a --reason "all five facts right, nothing lost" --yes
    """
    result = decide(
        checkpoint, Decision.APPROVE, reason=reason, operator=operator, days=days, is_sure=yes, is_quiet=as_json
    )

    def text() -> None:
        if result["promoted"]:
            click.secho(f"{short(result['candidate'])} answers now. Back: honed rollback --reason …", fg="green")
        else:
            click.echo(f"recorded; {result['approvals']} approvals so far, more are needed")

    emit(result, as_json, text)
