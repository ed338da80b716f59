"""Somebody who works with the command line: in processes of its own, or in this one."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from service import exits
from service.cli import group
from service.cli.errors import run

ROOT = Path(__file__).parents[2]
BASE_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HONED_")}


@dataclass(frozen=True, slots=True)
class Shell:
    """A state directory and the commands of somebody who works in it."""

    state: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        here = {"HONED_STATE": str(self.state), "HONED_KEYS": str(self.state / "keys"), "COLUMNS": "120"}
        return {**BASE_ENVIRONMENT, **here, **self.settings}

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "service", *arguments]
        return subprocess.run(
            command,
            env=self.environment,
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert (done.returncode, done.stderr) == (exits.OK, ""), done
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def fails(self, code: int, *arguments: str, stdin: str = "") -> str:
        """One line of error, one at most of what to try; nothing of Python's."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, done
        lines = done.stderr.splitlines()
        assert lines[0].startswith("Error: "), done.stderr
        assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("Try: ")), done.stderr
        return done.stderr


class Here(Shell):
    """Commands run in this process, for those that end before they load anything: a process each takes a second."""

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        said, complained = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name in set(os.environ) - set(self.environment):
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["honed", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            with redirect_stdout(said), redirect_stderr(complained):
                code = run(group)
        return subprocess.CompletedProcess(arguments, code, said.getvalue(), complained.getvalue())
