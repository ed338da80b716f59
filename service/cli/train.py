"""`honed train`"""

from typing import Any

import click

from agent.recipe import METHODS
from service import exits
from service.cli.common import client, emit, json_option, short
from service.cli.progress import follow
from service.cli.terminal import line

TRUTHS = {"true": True, "false": False}


@click.command()
@click.option("--wait", is_flag=True, help="Stay until the candidate is judged, showing progress.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="Learn from corrections (sft, the default), from what people prefer, or from both.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting of the recipe, e.g. rank=16, sft.max_steps=20 or sft.is_aimed=false.",
)
@json_option
def command(wait: bool, method: str | None, changes: tuple[str, ...], as_json: bool) -> int:
    """Start a training run on everything taught so far. It runs beside serving and changes nothing by itself.

    Example: honed train --wait
    """
    run = client().post("/operator/train", {"recipe": _recipe(method, changes)})
    if not wait:
        emit(run, as_json, lambda: click.echo(f"run {short(run['id'])} is queued; `honed runs --watch` shows it"))
        return exits.OK
    done = follow(run["id"], is_quiet=as_json)
    done.pop("metrics")
    emit(done, as_json, lambda: tell_end(done))
    return exits.OK if done["state"] == "judged" else exits.RUN_FAILED


def tell_end(run: dict[str, Any]) -> None:
    if run["state"] == "judged":
        candidate = short(run["checkpoint"])
        click.echo(f"candidate {candidate} is ready: honed review {candidate}")
    else:
        click.echo(line(f"run {short(run['id'])} {run['state']}: {run['error']}"), err=True)


def _recipe(method: str | None, changes: tuple[str, ...]) -> dict[str, Any]:
    recipe: dict[str, Any] = {"method": method} if method else {}
    for name, number in map(_value, changes):
        group, dot, inner = name.partition(".")
        if dot:
            recipe.setdefault(group, {})[inner] = number
        else:
            recipe[name] = number
    return recipe


def _value(change: str) -> tuple[str, float | int | bool]:
    name, _, text = change.partition("=")
    if text in TRUTHS:
        return name, TRUTHS[text]
    try:
        return name, int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise click.UsageError(f"--set {change!r} is not of the form NAME=NUMBER, or NAME=true or false") from None
