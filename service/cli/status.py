"""`honed status`"""

from typing import Any

import click

from service.cli.common import client, emit, json_option, reach, short, when
from service.cli.terminal import line


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Show who answers, who is waiting for a decision, and what is being learnt.

    Example: honed status --json
    """
    picture = client().get("/operator/status")
    emit(picture, as_json, lambda: _text(picture))


def _text(picture: dict[str, Any]) -> None:
    champion, learning, device = picture["champion"], picture["learning"], picture["device"]
    kind = "the base" if champion["is_base"] else f"since {when(champion['since'])}"
    kind += f", {reach(champion['scope'])}" if champion["scope"] else ""
    state = "ready" if picture["ready"] else f"NOT READY: {picture['problem']}"
    speed = f", {device['tokens_per_second']:.0f} tokens/s while busy" if device["tokens_per_second"] else ""
    lines = [
        f"honed      {picture['address']}  {picture['model']}  {state}",
        f"champion   {short(champion['id'])}  {kind}",
        f"previous   {short(picture['previous'])}",
        f"device     {device['name']} {device['dtype']}{speed}, {picture['requests']} requests under way",
        f"learning   {learning['state']}, {learning['new_labels']} new corrections",
        f"log        {picture['interactions']} interactions, {picture['feedback']} feedback",
        f"questions  {picture['questions']} open → honed label",
        f"operators  {', '.join(picture['operators']) or 'none yet: honed operator add NAME'}",
    ]
    judged = {arm: found for arm, found in picture["asking"].items() if found["num_judged"]}
    if judged:
        shares = [f"{arm} {found['num_wrong']} of {found['num_judged']}" for arm, found in judged.items()]
        lines.append(f"asking     wrong answers found by questions: {', '.join(shares)}")
    if picture["lift"]:
        gain, low, high = (100 * picture["lift"][name] for name in ("gain", "low", "high"))
        lines.append(f"lift       picking finds {gain:+.0f} points more than chance (95 %: {low:+.0f} to {high:+.0f})")
    if picture["certainty"]:
        c = picture["certainty"]
        lines.append(
            f"certainty  AUROC {c['auroc']:.2f} over {c['num_judged']} judged answers (their length alone "
            f"{c['length_auroc']:.2f}), P(wrong) off by {c['ece']:.2f}"
        )
    if device["slow_because"]:
        lines.append(f"SLOW       {device['slow_because']}")
    lines += [
        f"candidate  {short(c['id'])}  {c['verdict']}  → honed review {short(c['id'])}" for c in picture["candidates"]
    ]
    lines += [f"REFUSED    {short(r['checkpoint'])}  {r['reason']}" for r in picture["refused"]]
    click.echo("\n".join(map(line, lines)))
