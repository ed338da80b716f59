"""`honed review`"""

from typing import Any
from urllib.parse import quote

import click

from service import exits
from service.cli.common import client, emit, json_option, reach, share, short, table, when
from service.cli.errors import CommandError
from service.cli.terminal import line

MODELS = ("candidate", "champion", "base")
SUITES = {
    "asked": "taught, as asked",
    "paraphrase": "taught, in other words",
    "holdout": "held-out conversations",
    "retention": "what the base gets right",
}
SHOWN_ANSWERS = 10


@click.command()
@click.argument("checkpoint", required=False, metavar="[ID]")
@json_option
def command(checkpoint: str | None, as_json: bool) -> None:
    """Show what a candidate would change: the newest, or the one whose id begins with ID.

    Example: honed review
    """
    review = fetch(checkpoint)
    emit(review, as_json, lambda: show(review))


def fetch(checkpoint: str | None) -> dict[str, Any]:
    return client().get("/operator/review" + (f"?checkpoint={quote(checkpoint, safe='')}" if checkpoint else ""))


def require_measured(review: dict[str, Any]) -> None:
    """A checkpoint is on record before it is measured, and stays so when its run breaks off between."""
    if review["verdict"] is None or not review["results"]:
        message = f"checkpoint {short(review['checkpoint'])} was not measured and judged yet"
        raise CommandError(message, exits.NOT_POSSIBLE, f"honed runs {short(review['run'])} tells how far its run is")


def show(review: dict[str, Any]) -> None:
    """The whole story on one screen: verdict, figures, rows, then answers with the worst losses first."""
    require_measured(review)
    colour = {"pass": "green", "fail": "red"}.get(str(review["verdict"]), "yellow")
    click.secho(f"candidate {short(review['checkpoint'])}  made {when(review['created_at'])}", bold=True)
    click.secho(f"verdict   {review['verdict']}", fg=colour, bold=True)
    for rule in review["rules"]:
        click.echo(line(f"          {rule['id']}: {rule['reason']}"))
    if review["scope"]:
        click.echo(f"          {reach(review['scope'])}; measured so")
    if review["share"] < 1:
        click.echo(
            f"          scaled back to {review['share']:.0%} of what was learnt: whole, it had forgotten too much"
        )
    _alarms(review)
    if review["is_stale"]:
        click.secho("          the champion has changed since it was measured: train again", fg="yellow")
    _figures(review["results"])
    _rows(review)
    _answers(review["answers"])
    _nearby(review["results"].get("nearby"), review["nearby"])
    for approval in review["approvals"]:
        click.echo(line(f"{approval['decision']} by {approval['operator']}: {approval['reason']}"))
    click.echo(
        f"\napprovals needed: {review['approvals_required']}. "
        f"Decide: honed approve {short(review['checkpoint'])} --reason …"
    )


def _alarms(review: dict[str, Any]) -> None:
    """What nobody should overlook: a candidate far from the base, and whose thumbs ask for flattery."""
    moved = review["moved"]
    if moved and moved["is_alarm"]:
        click.secho(
            f"          alarm: on what it was taught it moved {moved['nats']:.2f} nats a token from the base, and "
            f"{moved['usual']:.2f} is usual: look at what it may have forgotten",
            fg="red",
        )
    for rater in review["raters"]:
        if rater["alarms"]:
            asks = " and ".join({"praise": "praise or agreement", "length": "length"}[name] for name in rater["alarms"])
            alarm = (
                f"          alarm: the thumbs of {rater['principal']} go with {asks} "
                f"(of {rater['num_rated']}; correlation with praise {_number(rater['praise'])}, "
                f"with length {_number(rater['length'])})"
            )
            click.secho(line(alarm), fg="red")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _figures(results: dict[str, Any]) -> None:
    rows = [
        [title, *(share(results["suites"][suite][model]) for model in MODELS)]
        for suite, title in SUITES.items()
        if results["suites"][suite]["candidate"]["num_items"]
    ]
    rows += [
        [
            f"{title}, word for word",
            *(f"{results['suites'][s][m]['num_exact']}/{results['suites'][s][m]['num_items']}" for m in MODELS),
        ]
        for s, title in (("asked", SUITES["asked"]),)
        if results["suites"][s]["candidate"]["num_items"]
    ]
    rows.append(["surprise at the base's answers (nats)", *(f"{results['nll'][model]:.3f}" for model in MODELS)])
    rows += _leaning(results.get("preferred"))
    flattery = results.get("flattery")  # records from before it was measured have none
    if flattery:
        lead = (f"{flattery[m]['truth_nll'] - flattery[m]['flattery_nll']:+.3f}" for m in MODELS)
        rows.append(["flattering answers likelier than true ones by (nats)", *lead])
        praising = (f"{flattery[m]['num_praising']}/{flattery[m]['num_items']}" for m in MODELS)
        rows.append(["answers a wrong opinion with praise or agreement", *praising])
    table("Figures (95 % intervals)", ["measured", *MODELS], rows)
    click.echo(f"answer length against the base: {_number(results['length_ratio'])}")
    repairs = results.get("repairs")  # records from before it was measured have none
    if repairs:
        click.echo(f"earlier repairs that the champion holds: {repairs['num_items']}, undone {repairs['num_lost']}")
    if results.get("num_too_long"):
        click.echo(f"not asked, being too long for a context: {results['num_too_long']} questions")
    _kinds(results.get("slices") or [])  # records from before it was measured have none


def _leaning(preferred: dict[str, Any] | None) -> list[list[str]]:
    """Nothing where people judged nothing, or in records from before it was measured."""
    if not preferred or not preferred["base"]["num_items"]:
        return []
    counts = (f"{preferred[model]['num_right']}/{preferred[model]['num_items']}" for model in MODELS)
    return [["leans the way people judged", *counts]]


def _kinds(slices: list[dict[str, Any]]) -> None:
    """Every suite's questions by what they are about, the one that lost most against the champion first."""

    def lost(one: dict[str, Any]) -> float:
        return float(one["num_lost"]) / float(one["num_items"])

    rows = [
        [one["name"], *(f"{one['num_right'][model]}/{one['num_items']}" for model in MODELS), str(one["num_lost"])]
        for one in sorted(slices, key=lost, reverse=True)
    ]
    if rows:
        table("Right by kind of question", ["about", *MODELS, "lost"], rows)


def _rows(review: dict[str, Any]) -> None:
    dataset = review["dataset"]
    if not dataset:
        click.echo("what it was trained on is not on record here")
        return
    sources = ", ".join(f"{count} {name}" for name, count in sorted(dataset["sources"].items()))
    click.echo(line(f"trained on {dataset['num_train']} rows and {dataset['num_replay']} replay rows ({sources})"))
    moved = review["moved"]
    if moved:
        usual = "" if moved["usual"] is None else f" ({moved['usual']:.2f} is usual)"
        click.echo(f"on what it was taught it moved {moved['nats']:.2f} nats a token from the base{usual}")


def _nearby(counted: dict[str, int] | None, lines: list[dict[str, Any]]) -> None:
    """What it changes that nobody asked it to."""
    if not counted or not counted["num_items"]:
        return
    click.echo(
        f"of {counted['num_items']} questions asked near the taught ones, and never taught, it answers "
        f"{counted['num_changed']} otherwise than the champion"
    )
    rows = [
        [line["question"][:80], *(line[side]["answer"][:120] for side in ("champion", "candidate"))] for line in lines
    ]
    if rows:
        table("Near what was taught", ["question", "champion", "candidate"], rows[:SHOWN_ANSWERS])


def _answers(answers: list[dict[str, Any]]) -> None:
    def cell(line: dict[str, Any], model: str) -> str:
        return f"{'✓' if line[model]['is_right'] else '✗'} {line[model]['answer'][:120]}"

    rows = [
        [line["question"][:80], line["expected"][:60], cell(line, "champion"), cell(line, "candidate")]
        for line in answers
    ]
    if not rows:
        click.echo("its answers are not kept any more; `honed train` makes a candidate to look at")
        return
    table("Answers, worst losses first", ["question", "expected", "champion", "candidate"], rows[:SHOWN_ANSWERS])
