"""What every subcommand uses: the client, `--json`, and how ids, times and shares are shown."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import click

from service import exits
from service.cli.errors import CommandError
from service.cli.terminal import shown
from service.client import Client
from service.paths import Paths, state_directory

if TYPE_CHECKING:
    from service.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def paths() -> Paths:
    try:
        return Paths(state_directory())
    except ValueError as error:
        raise CommandError(f"HONED_STATE: {error}", exits.USAGE) from None


def client() -> Client:
    return Client(paths().socket)


def settings() -> "Settings":
    """Every layer of them; a setting that cannot be is named in one line."""
    from pydantic import ValidationError

    from service.config import Settings

    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CommandError(f"settings: {problems}", exits.USAGE) from None
    except ValueError as error:  # not TOML, not UTF-8
        raise CommandError(f"settings: {paths().settings}: {error}", exits.USAGE) from None


def emit(value: Any, as_json: bool, text: Callable[[], None]) -> None:
    """JSON for scripts, or whatever `text` prints for people."""
    if as_json:
        click.echo(shown(json.dumps(value, indent=2, ensure_ascii=False, default=str)))
    else:
        text()


def short(id: str | None) -> str:  # noqa: A002 - it is one
    return id[:12] if id else "–"


def in_path(id: str) -> str:  # noqa: A002 - it is one
    """An id, or the beginning of one, as a part of a path."""
    if not id or "/" in id:
        raise CommandError(f"nothing has the id {id!r}", exits.NOT_FOUND)
    return quote(id, safe="")


def when(at: float | None) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else "–"


def share(score: dict[str, Any]) -> str:
    """Like `5/5 (57–100 %)`: right of all, with the 95 % interval."""
    if not score["num_items"]:
        return "–"
    return f"{score['num_right']}/{score['num_items']} ({score['low']:.0%}–{score['high']:.0%})"


def reach(scope: Mapping[str, Any]) -> str:
    """Where an adapter that has a scope answers."""
    count = scope["num_questions"]
    questions = f"{count} taught question{'' if count == 1 else 's'}"
    return f"answers near {questions} (cosine {scope['nearness']:g}), the base elsewhere"


def table(title: str | None, columns: list[str], rows: list[list[str]]) -> None:
    """A table on the terminal. Cells are data, never markup and never control characters."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(shown(cell)) for cell in row))
    Console().print(grid)
