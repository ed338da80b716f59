"""`honed data`"""

from collections import Counter
from typing import Any

import click

from service.cli.common import client, emit, json_option, table


@click.group()
def command() -> None:
    """See what of people's words would be learnt, and what not."""


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """Count what a run would learn now, and what would be dropped by which rule.

    Example: honed data list
    """
    found = client().get("/operator/data")
    emit(found, as_json, lambda: _text(found))


@command.command("explain")
@click.argument("id_", metavar="ID")
@json_option
def explain(id_: str, as_json: bool) -> None:
    """Say whether what was said under ID, an interaction's or a feedback's, would be learnt, and if not, why.

    Example: honed data explain 3f2a9c
    """
    told = client().get(f"/operator/data/{id_}")

    def text() -> None:
        click.echo(f"{told['feedback']} is {_because(told)}")
        if told["preference"]:
            click.echo(f"as something to prefer, it is {_because(told['preference'])}")

    emit(told, as_json, text)


def _because(told: dict[str, Any]) -> str:
    return f"{told['state']} by {told['rule']}: {told['reason']}" if told["rule"] else str(told["state"])


def _text(found: dict[str, Any]) -> None:
    counts = Counter(drop["rule"] for drop in found["dropped"])
    examples = {drop["rule"]: drop for drop in found["dropped"]}
    rows = [[rule, str(count), examples[rule]["lesson_id"], examples[rule]["reason"]] for rule, count in counts.items()]
    table(None, ["rule", "rows", "for example", "why"], [["kept", str(found["kept"]), "", ""], *rows])
