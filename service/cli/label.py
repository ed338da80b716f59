"""`honed label`"""

from typing import Any

import click

from service.cli.common import client, emit, in_path, json_option
from service.cli.terminal import indented, line

CHOICES = {
    "a": "answer",
    "r": "right",
    "w": "wrong",
    "f": "document",
    "d": "unknown",
    "s": "skip",
    "x": "exclude",
}
ASKED = {"answer": "what should it have been", "document": "which document settles it (title, path or address)"}
BETTER = {"1": "first", "2": "second", "n": "neither", "d": "unknown", "s": "skip"}


@click.command()
@click.argument("question_id", required=False, metavar="[ID]")
@click.option("--answer", "correction", metavar="TEXT", help="With ID: what the answer should have been.")
@click.option("--document", metavar="TEXT", help="With ID: what settles it, a document's title, path or address.")
@click.option("--right", "action", flag_value="right", help="With ID: it was right.")
@click.option("--wrong", "action", flag_value="wrong", help="With ID: it was wrong.")
@click.option("--unknown", "action", flag_value="unknown", help="With ID: I don't know.")
@click.option(
    "--better",
    type=click.Choice(["first", "second", "neither", "unknown"]),
    help="With ID of a question about two answers: which is better.",
)
@click.option("--skip", "action", flag_value="skip", help="With ID: skip it.")
@click.option("--exclude", "action", flag_value="exclude", help="With ID: don't learn this.")
@json_option
def command(
    question_id: str | None,
    correction: str | None,
    document: str | None,
    action: str | None,
    better: str | None,
    as_json: bool,
) -> None:
    """Go through the model's questions one by one, or settle the one whose id begins with ID, as `honed queue` has it.

    Example: honed label
    """
    if question_id is None:
        count = _ask_all()
        emit({"labelled": count}, as_json, lambda: click.echo(f"{count} settled. `honed train` learns from them."))
        return
    ended = [one for one in (action, better) if one]
    if len(ended) + bool(correction) > 1:
        raise click.UsageError("say one thing of a question; --document goes with --answer, or stands alone")
    chosen = "answer" if correction else ended[0] if ended else "document" if document else None
    if chosen is None:
        ways = "--answer TEXT, --right, --wrong, --document TEXT, --unknown, --better WHICH, --skip or --exclude"
        raise click.UsageError(f"say what: {ways}")
    result = _settle(question_id, chosen, correction=correction, document=document)
    emit(result, as_json, lambda: click.echo(str(result["state"])))


def _settle(question_id: str, action: str, **words: str | None) -> dict[str, object]:
    said = {name: text for name, text in words.items() if text}
    return client().post(f"/operator/questions/{in_path(question_id)}", {"action": action, **said})


def _ask_all() -> int:
    count = 0
    for question in client().get("/operator/questions?limit=200")["questions"]:
        click.echo()
        for message in question["messages"]:
            click.echo(f"{message['role']}: {indented(message['content'])}")
        choice = _better(question) if question["other_id"] else _right(question)
        if choice == "quit":
            break
        said = {choice: click.prompt(ASKED[choice])} if choice in ASKED else {}
        _settle(question["id"], choice, correction=said.get("answer"), document=said.get("document"))
        count += 1
    return count


def _right(question: dict[str, Any]) -> str:
    click.secho(f"answer: {indented(question['reply'])}", bold=True)
    _why(question)
    ways = "[a]nswer, it was [r]ight, [w]rong, in a [f]ile, [d]on't know; [s]kip, don't learn this [x], [q]uit"
    return _choose(ways, CHOICES)


def _better(question: dict[str, Any]) -> str:
    for number, answer in enumerate((question["reply"], question["other_reply"]), start=1):
        click.secho(f"answer {number}: {indented(answer)}", bold=True)
    _why(question)
    return _choose("which is better: [1], [2], [n]either, [d]on't know; [s]kip, [q]uit", BETTER)


def _why(question: dict[str, Any]) -> None:
    click.secho(line(f"why this one ({question['arm'] or 'chosen'}): {question['reason']}"), dim=True)


def _choose(text: str, choices: dict[str, str]) -> str:
    chosen = click.prompt(text, type=click.Choice([*choices, "q"]), show_choices=False)
    return {**choices, "q": "quit"}[chosen]
