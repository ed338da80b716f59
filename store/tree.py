"""Walks and opens the files of a directory without ever following a link or waiting on a pipe.

Every step goes through an open descriptor, so that swapping a folder for a link mid-way changes nothing.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArtifactError(Exception):
    """A sealed directory isn't what it should be; `file` is the path inside it that shows it."""

    def __init__(self, message: str, *, file: str) -> None:
        super().__init__(message)
        self.file = file


def check_name(name: str) -> None:
    """Only plain relative paths, the same on every system."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
        raise ArtifactError(f"unsafe path {name!r} in a sealed directory", file=name)


@contextlib.contextmanager
def open_root(directory: Path) -> Iterator[int]:
    try:
        descriptor = os.open(directory, FOLDER_FLAGS)
    except OSError as error:
        raise ArtifactError(f"{directory} is not a directory that can be read: {error}", file=".") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def list_files(root: int, folder: str = "") -> Iterator[str]:
    """Every regular file below `root`, as a relative path; anything else but a folder is refused."""
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
        modes = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in found]
    for base, mode in modes:
        name = folder + base
        check_name(name)
        if stat.S_ISDIR(mode):
            with _open_folder(root, base, name) as descriptor:
                yield from list_files(descriptor, f"{name}/")
        elif stat.S_ISREG(mode):
            yield name
        else:
            raise ArtifactError(f"{name} is not a regular file", file=name)


@contextlib.contextmanager
def open_file(root: int, name: str) -> Iterator[BufferedReader]:
    *folders, base = name.split("/")
    with contextlib.ExitStack() as stack:
        for folder in folders:
            root = stack.enter_context(_open_folder(root, folder, name))
        with _refusing(name):
            file = stack.enter_context(os.fdopen(os.open(base, FILE_FLAGS, dir_fd=root), "rb"))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ArtifactError(f"{name} is not a regular file", file=name)
        yield file


@contextlib.contextmanager
def _open_folder(root: int, base: str, name: str) -> Iterator[int]:
    with _refusing(name):
        descriptor = os.open(base, FOLDER_FLAGS, dir_fd=root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ArtifactError(f"{name} is missing", file=name) from error
    except OSError as error:
        raise ArtifactError(f"{name} can't be opened as a plain file: {error.strerror}", file=name) from error
