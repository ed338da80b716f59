"""`honed feedback`"""

import click

from service.cli.common import client, emit, json_option


@click.command()
@click.argument("interaction_id", metavar="ID")
@click.option("--up", "rating", flag_value="up", help="The answer was good.")
@click.option("--down", "rating", flag_value="down", help="The answer was not good.")
@click.option(
    "--correction", metavar="TEXT", help="What the answer should have been. This is what the model learns from."
)
@click.option("--document", metavar="TEXT", help="What settles it: a document's title, path or address.")
@click.option("--comment", metavar="TEXT", help="A remark for people; nothing is learnt from it.")
@json_option
def command(
    interaction_id: str,
    rating: str | None,
    correction: str | None,
    document: str | None,
    comment: str | None,
    as_json: bool,
) -> None:
    """Rate or correct the answer with this interaction ID (it stands under every answer). The latest word stands.

    ID is a whole one: `honed chat` shows it, and so does `honed queue --json`.

    Example: honed feedback 9f86d081884c4d659a2feaa0c55ad015 --down --correction "The code is 7714."
    """
    given = {"rating": rating, "correction": correction, "document": document, "comment": comment}
    body = {name: value for name, value in given.items() if value is not None}
    if not body:
        raise click.UsageError("say something: --up, --down, --correction TEXT, --document TEXT or --comment TEXT")
    result = client().post("/v1/feedback", {"interaction_id": interaction_id, **body})
    emit(result, as_json, lambda: click.echo("noted, thank you"))
