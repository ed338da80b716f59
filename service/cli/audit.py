"""`honed audit`"""

from dataclasses import asdict

import click

from service import exits
from service.cli.common import emit, json_option, short, table, when
from service.cli.ledger import reading
from service.cli.terminal import line


@click.group()
def command() -> None:
    """Check and read the hash-chained record of every decision. Works with and without the daemon."""


@command.command("verify")
@click.option(
    "--expect-head", metavar="HASH", help="A head printed earlier and kept elsewhere: finds a shortened record."
)
@json_option
def verify(expect_head: str | None, as_json: bool) -> int:
    """Check every link and every witnessed row.

    Example: honed audit verify --expect-head 9c0f…
    """
    from store.witness import compare

    with reading() as book:
        report = book.audit.verify(expect_head)
        problems = report.problems or compare(book.db, book.audit)

    def text() -> None:
        click.echo(f"{report.num_entries} entries, head {report.head}")
        for problem in problems:
            click.secho(line(f"BROKEN: {problem}"), fg="red")

    emit({**asdict(report), "problems": problems}, as_json, text)
    return exits.AUDIT_BROKEN if problems else exits.OK


@command.command("log")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="The newest so many.")
@json_option
def log(limit: int, as_json: bool) -> None:
    """Show the newest entries.

    Example: honed audit log --limit 5
    """
    with reading() as book:
        head = book.audit.head()
        entries = book.audit.entries(after=max(0, head.seq - limit), limit=limit) if head else []
    rows = [
        [str(e.seq), when(e.created_at), e.event, ", ".join(f"{k}={short(str(v))}" for k, v in e.body.items())]
        for e in entries
    ]
    emit([asdict(entry) for entry in entries], as_json, lambda: table(None, ["seq", "at", "event", "about"], rows))
