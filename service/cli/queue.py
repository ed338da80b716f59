"""`honed queue`"""

import click

from service.cli.common import client, emit, json_option, short, table


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many.")
@json_option
def command(limit: int, as_json: bool) -> None:
    """Show which answers the model would like to be told about, and why, the most worthwhile first.

    Example: honed queue --limit 5
    """
    questions = client().get(f"/operator/questions?limit={limit}")["questions"]

    def text() -> None:
        if not questions:
            click.echo("Nothing to ask. Questions come from answers that the model was unsure about.")
            return
        rows = [
            [short(q["id"]), q["messages"][-1]["content"][:80], q["reply"][:80], q["arm"] or "–", q["reason"]]
            for q in questions
        ]
        table(None, ["question", "asked", "answered", "chosen as", "why"], rows)

    emit(questions, as_json, text)
