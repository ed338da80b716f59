"""Child processes: start them apart, watch them by pid and files, stop them whole.
Knows the run directory's contract only.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from agent.rundir import RunDirectory

GRACE_SECONDS = 5


class ChildState(StrEnum):
    """What is known of a child from its pid and its directory."""

    RUNNING = "running"
    DONE = "done"  # DONE was written: every output is on disk
    FAILED = "failed"  # it said why in error.json
    LOST = "lost"  # gone without a word: killed, or the machine went down


@dataclass(frozen=True, slots=True)
class Child:
    """A process that is ours: the start time tells it from a later one with the same pid."""

    pid: int
    started_at: float


class Supervisor:
    """Starts and watches the children of this daemon, and those a killed daemon left behind."""

    def __init__(self, *, nice: int) -> None:
        self._nice = nice
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, module: str, directory: Path) -> Child:
        """`python -m MODULE DIRECTORY` in a session of its own, output to `DIRECTORY/output.log`.

        A process that works there already (started by a daemon that died before it could record it) is taken over.
        """
        working = RunDirectory(directory).worker()
        if working is not None:
            with suppress(psutil.NoSuchProcess):  # it ended just now: start afresh
                return Child(working, psutil.Process(working).create_time())
        for name in ("DONE", "error.json"):
            (directory / name).unlink(missing_ok=True)
        command = [sys.executable, "-m", module, str(directory)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HONED_", "NOTIFY_"))}
        environment |= {"PYTHONUNBUFFERED": "1"}
        with (directory / "output.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,
                close_fds=True,
            )
        self._started[process.pid] = process
        child = psutil.Process(process.pid)
        child.nice(self._nice)
        return Child(process.pid, child.create_time())

    def state(self, child: Child | None, directory: Path) -> ChildState:
        """Where a child stands; also for one that an earlier daemon started."""
        if self._is_alive(child):
            return ChildState.RUNNING
        if (directory / "DONE").exists():
            return ChildState.DONE
        if (directory / "error.json").exists():
            return ChildState.FAILED
        return ChildState.LOST

    def error(self, directory: Path) -> str:
        """What a failed child said."""
        said = json.loads((directory / "error.json").read_text(encoding="utf-8"))
        return f"{said['type']}: {said['message']}"

    def stop(self, child: Child | None) -> None:
        """End the child and all it started: first politely, then not."""
        if child is None or not self._is_alive(child):
            return
        family = _family(child.pid)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for member in family:
                with suppress(psutil.NoSuchProcess):  # it ended just now; a later one with its pid is not signalled
                    member.send_signal(sign)
            _, family = psutil.wait_procs(family, timeout=GRACE_SECONDS)
            if not family:
                break
        self._is_alive(child)  # reaps it, if it was ours

    def _is_alive(self, child: Child | None) -> bool:
        if child is None:
            return False
        process = self._started.get(child.pid)
        if process is not None and process.poll() is not None:  # reaps our own
            del self._started[child.pid]
            return False
        try:
            found = psutil.Process(child.pid)
            is_ours = abs(found.create_time() - child.started_at) < 1.0
            return is_ours and bool(found.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


def _family(pid: int) -> list[psutil.Process]:
    """The process and all below it; none when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
