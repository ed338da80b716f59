"""`honed data`"""

from collections import Counter
from typing import Any

import click

from service.cli.common import client, emit, in_path, json_option, short, table
from service.cli.terminal import line


@click.group()
def command() -> None:
    """See what of people's words would be learnt, what not, and what they ask about."""


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
    """Say whether what was said under ID, an interaction's or a feedback's, or the beginning of one, would be learnt,
    and if not, why.

    Example: honed data explain 3f2a9c
    """
    told = client().get(f"/operator/data/{in_path(id_)}")

    def text() -> None:
        click.echo(line(f"{told['feedback']} is {_because(told)}"))
        if told["preference"]:
            click.echo(line(f"as something to prefer, it is {_because(told['preference'])}"))

    emit(told, as_json, text)


@command.command("documents")
@json_option
def documents(as_json: bool) -> None:
    """List what people named as settling a question, the most often named first.

    Example: honed data documents
    """
    found = client().get("/operator/documents")["documents"]

    def text() -> None:
        if not found:
            click.echo("No document was named yet. `honed label` and `honed feedback --document` take them.")
            return
        rows = [[one["document"], str(len(one["questions"])), one["questions"][0]] for one in found]
        table(None, ["document", "questions", "for example"], rows)

    emit(found, as_json, text)


@command.command("clusters")
@click.option("--count", type=click.IntRange(1, 200), default=20, show_default=True, help="At most so many.")
@json_option
def clusters(count: int, as_json: bool) -> None:
    """Show what people ask about: groups of like questions, largest first.

    Drift is a group's share of the newest fifth of the questions, less its share of the others.

    Example: honed data clusters --count 10
    """
    found = client().get(f"/operator/clusters?count={count}")["clusters"]

    def text() -> None:
        if not found:
            click.echo("Nothing was asked yet. Questions are grouped once they have been scored.")
            return
        rows = [
            [c["name"], str(c["size"]), _error(c), _number(c["uncertainty"]), _number(c["novelty"]), _drift(c)]
            for c in found
        ]
        table(None, ["about", "questions", "judged wrong", "nats a token", "novelty", "drift"], rows)

    emit(found, as_json, text)


@command.command("certainty")
@json_option
def certainty(as_json: bool) -> None:
    """Show how well each checkpoint's doubt told its wrong answers from its right ones, by what people judged.

    Example: honed data certainty
    """
    found = client().get("/operator/certainty")["checkpoints"]

    def text() -> None:
        if not found:
            click.echo("No answer was judged yet. `honed feedback` and `honed label` judge them.")
            return
        columns = ["checkpoint", "judged", "wrong", "AUROC", "by length alone", "AURC", "P(wrong) off by"]
        table(None, columns, [[short(one["checkpoint"]), *_certain(one["report"])] for one in found])

    emit(found, as_json, text)


def _certain(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return ["too few", *["–"] * 5]
    share = f"{report['num_wrong'] / report['num_judged']:.0%}"
    figures = (report[name] for name in ("auroc", "length_auroc", "aurc", "ece"))
    return [str(report["num_judged"]), share, *map(_number, figures)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _error(cluster: dict[str, Any]) -> str:
    return "–" if cluster["error"] is None else f"{cluster['error']:.0%} of {cluster['num_judged']}"


def _drift(cluster: dict[str, Any]) -> str:
    return f"{100 * cluster['drift']:+.0f} points"


def _because(told: dict[str, Any]) -> str:
    return f"{told['state']} by {told['rule']}: {told['reason']}" if told["rule"] else str(told["state"])


def _text(found: dict[str, Any]) -> None:
    counts = Counter(drop["rule"] for drop in found["dropped"])
    examples = {drop["rule"]: drop for drop in found["dropped"]}
    rows = [[rule, str(count), examples[rule]["lesson_id"], examples[rule]["reason"]] for rule, count in counts.items()]
    table(None, ["rule", "rows", "for example", "why"], [["kept", str(found["kept"]), "", ""], *rows])
