"""The run directory, as its child process sees it: input read once, progress appended, results written, DONE last."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAIN_INPUT = "run.json"
EVALUATE_INPUT = "evaluation.json"
WORKER = "worker.lock"
REPAIRS = "repairs.jsonl"  # every correction that stood when the run was cut, to ask again
JUDGED = "judged.jsonl"  # and what people had judged
WEIGHED = "weighed.json"  # left by an evaluation that had to weigh again what the base made of the same
SURVEY_FILE = "survey.safetensors"  # left by a run that had to make one


@contextmanager
def assembled(destination: Path) -> Iterator["RunDirectory"]:
    """A run directory to fill; it takes the place of what stood at `destination` when it is whole, or not at all."""
    directory = destination.parent / f".{destination.name}.new"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, mode=0o700)
    try:
        yield RunDirectory(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    old = destination.parent / f".{destination.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)  # whole or gone: half of it would be taken for something
    directory.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A directory in, a directory out; nothing else is read or written."""

    path: Path

    def claim(self) -> bool:
        """Make this process the directory's only worker until it ends; False when there is one. Says which: `worker`.

        A daemon that dies after starting a child and before recording it starts another: that one must not write here.
        """
        descriptor = os.open(self.path / WORKER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return True  # the descriptor stays open: the lock is held as long as the process lives

    def worker(self) -> int | None:
        """The pid of the process that works here now, if one does."""
        try:
            with (self.path / WORKER).open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    said = file.read().strip()
                    return int(said) if said else None
        except FileNotFoundError:
            pass
        return None

    def read(self, name: str) -> dict[str, Any]:
        value = json.loads((self.path / name).read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"{self.path / name} holds {type(value).__name__}; expected an object")
        return value

    def rows(self, name: str) -> list[dict[str, Any]]:
        with (self.path / name).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Whole or not at all."""
        self._write_text(name, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write_text(name, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))

    def progress(self, phase: str, step: int, total: int, **figures: float) -> None:
        """One line of metrics.jsonl: what `honed runs --watch` shows."""
        line = {"phase": phase, "step": step, "total": total, "at": time.time(), **figures}
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def done(self) -> None:
        """Everything is on disk: say so, last."""
        for path in (*self.path.rglob("*"), self.path):
            if path.is_file() or path.is_dir():  # a file whose folder forgets its name is as good as none
                synced(path)
        self._write_text("DONE", "")

    def _write_text(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        synced(temporary)
        temporary.replace(self.path / name)
        synced(self.path)


def synced(path: Path) -> None:
    """What a file or a directory holds stands also after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
