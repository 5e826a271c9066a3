"""Transactions on a connection: several operations in one, a read in one snapshot, a checkpoint. Synchronous.

In: a connection on its own thread, and operations. Out: results, or the error of each that failed.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from msearchd.aio.sqlite_errors import BUSY_TIMEOUT_MS

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


def in_one_transaction(connection: sqlite3.Connection, operations: list[Operation[Any]]) -> list[Any]:
    """Results in order. Where one raises, those before it are committed, it gets its error, the rest goes on.

    An operation that fails after its neighbours ran would fail after their commit too: it is not run a second time.
    Where the transaction itself cannot begin or commit, all get that error: trying each alone would wait as often.
    """
    results: list[Any] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        _roll_back(connection)
        return [error] * len(operations)
    try:
        for operation in operations:
            result = operation(connection)
            if not connection.in_transaction:
                # SQLite itself rolled back (disk full, I/O error) and the operation hid it: never commit the rest.
                message = "the transaction was rolled back inside an operation"
                raise sqlite3.OperationalError(message)  # noqa: TRY301 - as if the operation had raised it
            results.append(result)
    except Exception as error:  # noqa: BLE001 - becomes the outcome
        _roll_back(connection)
        failed = len(results)
        before = in_one_transaction(connection, operations[:failed]) if failed else []
        after = in_one_transaction(connection, operations[failed + 1 :]) if operations[failed + 1 :] else []
        return [*before, error, *after]
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        _roll_back(connection)
        return [error] * len(operations)
    return results


def in_one_snapshot(connection: sqlite3.Connection, operation: Operation[T]) -> T:
    """The result of *operation*; all of its statements see the same state."""
    connection.execute("BEGIN")
    try:
        return operation(connection)
    finally:
        _roll_back(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def checkpoint(connection: sqlite3.Connection) -> bool:
    """True if the whole WAL is in the file and synced. Never waits for readers: their snapshot may be long."""
    connection.execute("PRAGMA busy_timeout=0")
    try:
        busy, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or pages != moved:
            return False
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # only gives the space back: may be refused
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    return True
