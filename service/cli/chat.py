"""`honed chat`"""

import sys
from typing import Any

import click

from service.cli.common import client, emit, json_option, short
from service.cli.terminal import line as one_line
from service.cli.terminal import shown
from service.client import Client, NoDaemon, Refused

HELP = "/up and /down rate the last answer, /correct TEXT says what it should have been, /new starts over, /quit leaves"


@click.command()
@click.argument("text", required=False)
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is greedy: the same answer each time.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens.")
@json_option
def command(text: str | None, temperature: float | None, max_tokens: int | None, as_json: bool) -> None:
    """Talk to the model; with TEXT, ask once and leave.

    Example: honed chat "What is the capital of France?"
    """
    connection = client()
    options: dict[str, Any] = {"model": connection.get("/v1/models")["data"][0]["id"]}
    if temperature is not None:
        options["temperature"] = temperature
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if text is not None:
        answer = ask(connection, [{"role": "user", "content": text}], options, is_quiet=as_json)
        emit(answer, as_json, lambda: _footer(answer))
        return
    _converse(connection, options)


def ask(
    connection: Client, messages: list[dict[str, str]], options: dict[str, Any], *, is_quiet: bool
) -> dict[str, Any]:
    """One turn, printed as it comes; returns the reply and what honed says of it. NoDaemon when it is not whole."""
    reply = ""
    honed: dict[str, Any] = {}
    try:
        for event in connection.stream("/v1/chat/completions", {**options, "messages": messages, "stream": True}):
            piece = "".join(choice["delta"].get("content", "") for choice in event["choices"])
            reply += piece
            honed = event.get("honed", honed)
            if not is_quiet:
                click.echo(shown(piece), nl=False)
                sys.stdout.flush()
    except (NoDaemon, Refused):
        if reply and not is_quiet:
            click.echo()  # the error gets a line of its own
        raise
    return {"reply": reply, **honed}


def _footer(answer: dict[str, Any]) -> None:
    unsure = answer.get("uncertainty")
    figure = "" if unsure is None else f" · {unsure:.2f} nats a token"
    click.secho(f"\n[{answer['interaction_id']} · {short(answer['checkpoint'])}{figure}]", dim=True)


def _converse(connection: Client, options: dict[str, Any]) -> None:
    click.secho(HELP, dim=True)
    messages: list[dict[str, str]] = []
    last: str | None = None
    while True:
        try:
            line = click.prompt("you", prompt_suffix="> ").strip()
        except click.Abort:
            return
        if line == "/quit":
            return
        if line == "/new":
            messages, last = [], None
        elif line.startswith("/"):
            _remark(connection, line, last, messages)
        else:
            messages.append({"role": "user", "content": line})
            try:
                answer = ask(connection, messages, options, is_quiet=False)
            except Refused as error:
                click.echo(one_line(str(error)), err=True)
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": answer["reply"]})
            last = answer["interaction_id"]
            _footer(answer)


def _remark(connection: Client, line: str, last: str | None, messages: list[dict[str, str]]) -> None:
    """/up, /down or /correct on the last answer."""
    word, _, rest = line.partition(" ")
    bodies: dict[str, dict[str, Any]] = {
        "/up": {"rating": "up"},
        "/down": {"rating": "down"},
        "/correct": {"rating": "down", "correction": rest.strip()},
    }
    if word not in bodies or last is None or (word == "/correct" and not rest.strip()):
        click.echo(HELP, err=True)
        return
    connection.post("/v1/feedback", {"interaction_id": last, **bodies[word]})
    if word == "/correct":
        messages[-1]["content"] = rest.strip()
    click.secho("noted, thank you", dim=True)
