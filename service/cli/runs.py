"""`honed runs`"""

import click

from service import exits
from service.cli.common import client, emit, in_path, json_option, short, table, when
from service.cli.progress import follow
from service.cli.terminal import line
from service.cli.train import tell_end


@click.command()
@click.argument("run_id", required=False, metavar="[ID]")
@click.option("--watch", is_flag=True, help="Follow the run (the newest without ID) to its end.")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="List at most so many.")
@json_option
def command(run_id: str | None, watch: bool, limit: int, as_json: bool) -> int:
    """List training runs, or look at or watch one.

    Example: honed runs --watch
    """
    if run_id is None and not watch:
        runs = client().get(f"/operator/runs?limit={limit}")["runs"]
        rows = [
            [short(r["id"]), when(r["created_at"]), r["trigger"], r["state"], short(r["checkpoint"]), r["error"] or ""]
            for r in runs
        ]
        emit(runs, as_json, lambda: table(None, ["run", "started", "by", "state", "candidate", "error"], rows))
        return exits.OK
    wanted = run_id or next((r["id"] for r in client().get("/operator/runs?limit=1")["runs"]), None)
    if wanted is None:
        emit(None, as_json, lambda: click.echo("There are no runs yet. `honed train` starts one."))
        return exits.NOT_FOUND
    run = follow(wanted, is_quiet=as_json) if watch else client().get(f"/operator/runs/{in_path(wanted)}")
    said = line(f"run {short(run['id'])}  {run['state']}  {run['error'] or ''}")
    emit(run, as_json, lambda: tell_end(run) if watch else click.echo(said))
    return exits.RUN_FAILED if run["state"] in ("failed", "interrupted") else exits.OK
