"""The command line: one file a subcommand, loaded when it is called. A client of the daemon; it loads no model."""

import importlib
import sys

import click

# name: (module, one line of help) — the help is here so that `honed --help` loads no command
COMMANDS = {
    "serve": ("serve", "Start the daemon in the foreground."),
    "fetch": ("fetch", "Fetch and verify the models, for use offline."),
    "status": ("status", "Who answers, who is waiting, what is being learnt."),
    "chat": ("chat", "Talk to the model in the terminal."),
    "feedback": ("feedback", "Rate or correct an answer."),
    "queue": ("queue", "Show what the model would like to be told."),
    "label": ("label", "Answer the model's questions, one by one."),
    "data": ("data", "See what would be learnt, and why a row would not."),
    "train": ("train", "Start a training run now."),
    "runs": ("runs", "List training runs, or watch one."),
    "review": ("review", "See what a candidate would change."),
    "approve": ("approve", "Sign an approval: the candidate becomes the champion."),
    "reject": ("reject", "Sign a rejection: the candidate never serves."),
    "rollback": ("rollback", "Go back to what answered before, at once."),
    "operator": ("operator", "Manage who may approve."),
    "key": ("key", "Manage who may ask over the network."),
    "audit": ("audit", "Check and read the record of decisions."),
    "export": ("export", "Write the champion with its whole story to a directory."),
    "demo": ("demo", "See the whole cycle on the real model, in a place of its own."),
    "install-service": ("install_service", "Install the systemd unit."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"service.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="honed", prog_name="honed")
def group() -> None:
    """A model that keeps learning on your own machine, and never changes without your word.

    Start with `honed serve`, talk with `honed chat`, correct with `honed feedback`, then `honed train --wait`,
    `honed review` and `honed approve`. HONED_STATE names the directory that holds everything.
    """


def main() -> None:
    """The console script."""
    from service.cli.errors import run

    sys.exit(run(group))
