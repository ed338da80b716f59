"""One SQLite file: migrated on opening, written by one thread with group commit, read by any thread.

What a `write` or a resolved `submit` returned is on disk. Tables and queries belong to the other modules.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils

from store.connection import Connection, SqliteError, StoreError, connect, connect_query_only
from store.writer import Writer

__all__ = ["Connection", "Database", "StoreError"]

T = TypeVar("T")


class Database:
    """`migrations` None opens a file that another process writes; see `open_read_only`."""

    def __init__(self, path: Path, migrations: sqlite_utils.Migrations | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._readers: dict[threading.Thread, Connection] = {}
        self._is_closed = False
        self._writer: Writer | None = None
        if migrations is None:
            connect_query_only(path, mode="ro").close()  # a missing or broken file shows now, not at the first query
        else:
            _migrate(path, migrations)
            self._writer = Writer(lambda: connect(path), name=f"writer:{path.name}")

    @classmethod
    def open_read_only(cls, path: Path) -> "Database":
        return cls(path, None)

    def write(self, fn: Callable[[Connection], T]) -> T:
        """Runs `fn` in a transaction on the writer thread; returns once it is durable."""
        return self._writing().write(fn)

    def submit(self, fn: Callable[[Connection], T]) -> Future[T]:
        """Like `write`, without waiting: the future resolves once `fn`'s changes are durable."""
        return self._writing().submit(fn)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view. Keep it short: a reader that lingers keeps the WAL from shrinking."""
        connection = self._reader()
        if connection.conn.in_transaction:
            yield connection
            return
        try:
            connection.execute("BEGIN")
            yield connection
        except SqliteError as error:
            raise StoreError(f"cannot read {self.path}: {error}") from error
        finally:
            connection.rollback()

    def chunks(self, sql: str, size: int) -> Iterator[list[tuple[Any, ...]]]:
        """All rows of a query, `size` at once; it takes the last key and a limit, and gives the key first, rising. Each
        chunk is a read of its own.
        """
        last = -1
        while True:
            with self.read() as connection:
                rows: list[tuple[Any, ...]] = connection.execute(sql, [last, size]).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield rows

    def close(self) -> None:
        """Writes what is queued, then closes everything. Safe to call again."""
        with self._lock:
            self._is_closed = True
            readers, self._readers = self._readers, {}
        for connection in readers.values():
            connection.close()
        if self._writer is not None:
            self._writer.close()  # last, so that SQLite folds the WAL back into the file

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self.path} is open for reading only; ask the daemon that writes it, or stop it first")
        return self._writer

    def _reader(self) -> Connection:
        thread = threading.current_thread()
        with self._lock:
            if self._is_closed:
                raise StoreError(f"{self.path} is closed; open it again before reading")
            if thread not in self._readers:
                self._close_orphans()
                mode = "ro" if self._writer is None else "rw"
                self._readers[thread] = connect_query_only(self.path, mode=mode)
            return self._readers[thread]

    def _close_orphans(self) -> None:
        for thread in [thread for thread in self._readers if not thread.is_alive()]:
            self._readers.pop(thread).close()


def _migrate(path: Path, migrations: sqlite_utils.Migrations) -> None:
    with contextlib.closing(connect(path)) as connection:
        try:
            # All steps or none, and never two processes at once.
            connection.execute("BEGIN IMMEDIATE")
            _refuse_newer(path, connection, migrations)
            migrations.apply(connection)
            connection.execute("COMMIT")
        except SqliteError as error:
            raise StoreError(f"cannot bring {path} to this version's schema: {error}; the file is unchanged") from error


def _refuse_newer(path: Path, connection: Connection, migrations: sqlite_utils.Migrations) -> None:
    with contextlib.closing(sqlite_utils.Database(memory=True)) as nothing:
        known = {step.name for step in migrations.pending(nothing)}
    if newer := sorted({step.name for step in migrations.applied(connection)} - known):
        raise StoreError(f"{path} was written by a newer version (schema step {newer[-1]}); install that version")
