"""Opens SQLite connections the way this project needs them: version, pragmas, file mode, errors.

Knows nothing of tables or threads; `store.database` decides who gets which connection.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import sqlite_utils
from sqlite_utils.utils import sqlite3

Connection: TypeAlias = sqlite_utils.Database
SqliteError = sqlite3.Error

# Before this version two connections to one WAL file can lose committed rows (sqlite.org/wal.html#walresetbug).
OLDEST_SQLITE = (3, 51, 3)

PRAGMAS = (
    "busy_timeout=5000",
    "synchronous=FULL",
    "foreign_keys=ON",
    "recursive_triggers=ON",  # without it INSERT OR REPLACE slips past the append-only triggers
    "trusted_schema=OFF",
    "journal_size_limit=67108864",
    "wal_autocheckpoint=1000",
)


class StoreError(Exception):
    """What the store could not do, to which file or row, and what to do next."""


def check_version(version: Sequence[int] = sqlite3.sqlite_version_info) -> None:
    if tuple(version) >= OLDEST_SQLITE:
        return
    found, needed = (".".join(map(str, v)) for v in (version, OLDEST_SQLITE))
    raise StoreError(f"SQLite {found} can lose committed rows; need {needed} or newer: pip install 'pysqlite3>=0.6.1'")


def connect(path: Path) -> Connection:
    """A writing connection; makes the file, readable by its owner only, if there is none."""
    check_version()
    try:
        _create_private(path)
        connection = _open(path, "rw")
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    except (OSError, SqliteError) as error:
        raise StoreError(f"cannot open {path}: {error}; check the path, its owner and the disk") from error
    if mode != "wal":
        connection.close()
        raise StoreError(f"{path} can only use journal_mode={mode}; move it to a local file system that supports WAL")
    return connection


def connect_query_only(path: Path, *, mode: str = "rw") -> Connection:
    """A connection that refuses to write. Never makes a file; mode "ro" also holds against `PRAGMA query_only=OFF`."""
    check_version()
    try:
        connection = _open(path, mode)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except SqliteError as error:
        raise StoreError(f"cannot read {path}: {error}; check the path and its owner") from error
    return connection


def sync_directory(path: Path) -> None:
    """Makes a new or renamed name in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_private(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the main file, so that one is made first."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    sync_directory(path.parent)


def _open(path: Path, mode: str) -> Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    # isolation_level None: transactions begin only where this package says so.
    raw = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection = sqlite_utils.Database(raw, execute_plugins=False)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except SqliteError:
        raw.close()
        raise
    return connection
