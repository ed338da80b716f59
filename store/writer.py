"""The one writer thread: gathers queued jobs into one transaction and answers them after its COMMIT.

Knows nothing of tables or files; it is given a way to connect.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from store.connection import Connection, SqliteError, StoreError

MAX_BATCH = 256
GATHER_SECONDS = 0.020  # the longest that a batch is held open for more
ARRIVAL_SECONDS = 0.001  # the next job must come within this, or the batch closes

T = TypeVar("T")
Job = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Item:
    job: Job[Any]
    future: Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: BaseException | None = None


class Writer:
    def __init__(self, connect: Callable[[], Connection], *, name: str) -> None:
        self._connect = connect
        self._connection: Connection | None = connect()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:  # nothing may be queued behind the closing mark
            if self._is_closed:
                raise StoreError("the database is closed; open it again before writing")
            self._queue.put(_Item(job, future))
        return future

    def write(self, job: Job[T]) -> T:
        if threading.current_thread() is self._thread:
            raise StoreError("write() inside a write would wait for itself; use the connection the job was given")
        return self.submit(job).result()

    def close(self) -> None:
        """Finishes what is queued, then stops. Safe to call again."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_closing = False
        while not is_closing:
            items, is_closing = self._gather()
            self._write_batch(items)
            del items  # while idle, hold no finished job and what it closes over
        self._drop_connection()

    def _gather(self) -> tuple[list[_Item], bool]:
        """Waits for a job; waits on for company only when more are already arriving."""
        items: list[_Item] = []
        item = self._queue.get()
        deadline = time.monotonic() + GATHER_SECONDS
        while item is not None:
            items.append(item)
            if len(items) == MAX_BATCH:
                return items, False
            patience = min(ARRIVAL_SECONDS, deadline - time.monotonic()) if len(items) > 1 else 0
            try:
                item = self._queue.get(timeout=max(patience, 0))
            except queue.Empty:
                return items, False
        return items, True

    def _write_batch(self, queued: list[_Item]) -> None:
        items = [item for item in queued if item.future.set_running_or_notify_cancel()]
        if not items:
            return
        try:
            outcomes = self._commit(items)
        except BaseException as error:  # noqa: BLE001 - each caller gets it; the thread must live on
            self._drop_connection()  # after a failed COMMIT or fsync nothing this connection believes can be trusted
            for item in items:
                item.future.set_exception(_named(error))
            return
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.error is None:
                item.future.set_result(outcome.value)
            else:
                item.future.set_exception(outcome.error)

    def _commit(self, items: list[_Item]) -> list[_Outcome]:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes = [_attempt(self._connection, item.job) for item in items]
        self._connection.execute("COMMIT")
        return outcomes

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SqliteError):  # broken enough not to close is no reason to stop writing
                connection.close()  # an open transaction rolls back with it


def _attempt(connection: Connection, job: Job[Any]) -> _Outcome:
    """One job in its own savepoint: if it raises, only its own changes go."""
    connection.execute("SAVEPOINT job")
    try:
        value = job(connection)
    except BaseException as error:
        if not connection.conn.in_transaction:  # a full disk, say: SQLite rolled the whole batch back
            raise
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return _Outcome(error=_named(error) if isinstance(error, SqliteError) else error)
    if not connection.conn.in_transaction:
        raise StoreError("a job ended the transaction of its batch; jobs must leave COMMIT and ROLLBACK to the writer")
    connection.execute("RELEASE job")
    return _Outcome(value)


def _named(error: BaseException) -> StoreError:
    """A fresh `StoreError` for each waiting caller, so that tracebacks don't mix."""
    named = StoreError(f"not written: {error}")
    named.__cause__ = error
    return named
