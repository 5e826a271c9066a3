"""SQLite for one process: one task owns the only write connection, readers have their own.

In: operations, plain functions of a `sqlite3.Connection`. Out: their results, acknowledged after COMMIT.
All operations that arrive in one tick share one transaction (29-51k acknowledged single enqueues a second against
5-9k one by one). Two tasks on one connection lose acknowledged updates, and a cancelled statement leaks its effect: so
nobody else ever touches the write connection, and a cancelled caller's operation still runs to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

from msearchd import errors

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

#: Bounds one transaction (about 30 ms of work), so that a reader of the WAL and the next tick wait no longer.
_GROUP_MAX: Final = 2000
_BUSY_TIMEOUT_MS: Final = 5000
#: 4000 pages halve the p99 of commits against 1000 (research: checkpoint stalls); the size limit returns the rest.
_AUTOCHECKPOINT_PAGES: Final = 4000
_JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class _Pending:
    operation: Operation[Any]
    future: asyncio.Future[Any]


class Database:
    """The daemon's one database file. `write` groups, `read` runs beside, `close` drains."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, readers: list[aiosqlite.Connection]) -> None:
        self.path = path
        self._writer = writer
        self._readers: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._all_readers = readers
        for reader in readers:
            self._readers.put_nowait(reader)
        self._pending: list[_Pending] = []
        self._wake = asyncio.Event()
        self._is_closing = False
        self._needs_checkpoint = False
        self._owner = asyncio.create_task(self._own_writer(), name="sqlite-writer")

    @classmethod
    async def open(cls, path: Path, *, is_durable: bool = False, readers: int = 2) -> Database:
        """Open or create the file (mode 0600).

        With *is_durable* every commit is synced to the disk (FULL); else commits survive any process death, and a power
        cut may undo the last ones without damage (NORMAL), which the scan at start finds again.
        Raises Misconfigured when the file is no database or cannot be opened.
        """
        with sqlite_errors():
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                message = f"cannot open {path}: {error.strerror}"
                raise errors.Misconfigured(message, key="data_dir", hint="check the folder's permissions and free space") from error
            os.close(fd)
            writer = await _connect(path)
            try:
                await writer.execute("PRAGMA journal_mode=WAL")
                await writer.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
                await writer.execute(f"PRAGMA wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}")
                await writer.execute(f"PRAGMA journal_size_limit={_JOURNAL_LIMIT_BYTES}")
                await writer.execute("PRAGMA foreign_keys=ON")
                opened = []
                for _ in range(readers):
                    reader = await _connect(path)
                    await reader.execute("PRAGMA query_only=ON")
                    opened.append(reader)
            except BaseException:
                await writer.close()
                raise
        return cls(path, writer, opened)

    async def write(self, operation: Operation[T]) -> T:
        """Run *operation* in the next transaction and return its result after COMMIT.

        It must be a function of the connection alone: if a neighbour in the same transaction fails, it is run again in
        one of its own. An exception undoes only its own operation. Cancelled here, it still runs to its end.
        Raises what it raises; RetryLater where the disk is full, locked or failing.
        """
        if self._is_closing:
            message = "the database is closing"
            raise errors.RetryLater(message)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(operation, future))
        self._wake.set()
        return await future

    async def read(self, operation: Operation[T]) -> T:
        """Run *operation* on a read-only connection, beside the writer. Sees everything acknowledged before."""
        connection = await self._readers.get()
        try:
            with sqlite_errors():
                return await asyncio.shield(_on_thread(connection, operation))
        finally:
            self._readers.put_nowait(connection)

    async def checkpoint(self) -> None:
        """Sync everything committed so far to the disk and shorten the WAL; called when idle."""
        if not self._needs_checkpoint:
            return
        self._needs_checkpoint = False
        with sqlite_errors():
            await _on_thread(self._writer, lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    async def close(self) -> None:
        """Finish what was handed in, checkpoint, close all connections (a forgotten one would hang the exit)."""
        if self._is_closing:
            return
        self._is_closing = True
        self._wake.set()
        await asyncio.gather(self._owner, return_exceptions=True)
        with contextlib.suppress(errors.MsearchError):
            await self.checkpoint()
        for _ in self._all_readers:
            await (await self._readers.get()).close()
        await self._writer.close()

    async def _own_writer(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                group, self._pending = self._pending[:_GROUP_MAX], self._pending[_GROUP_MAX:]
                await self._run(group)
            if self._is_closing:
                return

    async def _run(self, group: list[_Pending]) -> None:
        operations = [item.operation for item in group]
        try:
            outcomes = await _on_thread(self._writer, lambda c: _in_one_transaction(c, operations))
        except BaseException as error:  # noqa: BLE001 - the callers hear of it, the owner goes on
            outcomes = [error] * len(group)
        self._needs_checkpoint = True
        for item, outcome in zip(group, outcomes, strict=True):
            if item.future.done():  # the caller was cancelled; the effect stands
                continue
            if isinstance(outcome, BaseException):
                item.future.set_exception(translated(outcome))
            else:
                item.future.set_result(outcome)


def _in_one_transaction(connection: sqlite3.Connection, operations: list[Operation[Any]]) -> list[Any]:
    """Results of all, or where one fails: each run again alone, so that only the failing one is undone."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [operation(connection) for operation in operations]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - becomes the outcome
        _roll_back(connection)
        if len(operations) == 1:
            return [error]
    else:
        return results
    return [outcome for operation in operations for outcome in _in_one_transaction(connection, [operation])]


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


async def _connect(path: Path) -> aiosqlite.Connection:
    # isolation_level None: our BEGIN and COMMIT are the only ones.
    connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
    await connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    return connection


async def _on_thread(connection: aiosqlite.Connection, function: Operation[T]) -> T:
    # aiosqlite's public calls cost one thread hop per statement; its own primitive runs a whole function in one.
    # Not public API: held by tests/contracts/test_sqlite.py.
    return await connection._execute(function, connection._conn)  # noqa: SLF001


def translated(error: BaseException) -> BaseException:
    """A foreign SQLite error as one of our verbs; anything else as it is."""
    if isinstance(error, errors.MsearchError) or not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if isinstance(error, sqlite3.OperationalError):
        full = "full" in text
        translated_error: errors.MsearchError = errors.RetryLater(
            f"the database cannot be written now: {text}", after_s=5.0,
            hint="free some disk space" if full else "it is retried by itself")
        if "no such" in text or "syntax" in text:
            translated_error = errors.Bug(text)
    elif isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
        translated_error = errors.Misconfigured(f"the database is damaged: {text}", key="database",
                                                hint="stop the daemon and run: msearchd repair")
    else:
        translated_error = errors.Bug(f"{type(error).__name__}: {text}")
    translated_error.__cause__ = error
    return translated_error


@contextlib.contextmanager
def sqlite_errors() -> Any:  # noqa: ANN401 - a generator for contextmanager
    """Translate sqlite3 errors raised inside."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error


# -- migrations and named queries ---------------------------------------------------------------------------------------

_MIGRATION_NAME: Final = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


async def migrate(database: Database, *, component: str, package: str) -> None:
    """Bring *component*'s tables to the newest version: the numbered .sql files of *package*, each in one transaction.

    Raises Misconfigured where the file is newer than the program: an older program never touches it.
    """
    scripts = sorted(
        (int(match[1]), entry.read_text(encoding="utf-8"))
        for entry in importlib.resources.files(package).iterdir()
        if (match := _MIGRATION_NAME.match(entry.name))
    )
    newest = scripts[-1][0] if scripts else 0

    def version(connection: sqlite3.Connection) -> int:
        connection.execute("CREATE TABLE IF NOT EXISTS component_version"
                           "(component TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT")
        row = connection.execute("SELECT version FROM component_version WHERE component=?", (component,)).fetchone()
        return int(row[0]) if row else 0

    have = await database.write(version)
    if have > newest:
        message = f"the database was written by a newer msearchd ({component} version {have}, this program knows {newest})"
        raise errors.Misconfigured(message, key="database", hint="install the newer version again; nothing was changed")
    for number, script in scripts:
        if number > have:
            await database.write(lambda c, n=number, s=script: _apply(c, component, n, s))  # type: ignore[misc]


def _apply(connection: sqlite3.Connection, component: str, number: int, script: str) -> None:
    # Not executescript: it commits first. One statement after another stays inside our transaction.
    for statement in statements(script):
        connection.execute(statement)
    connection.execute("INSERT INTO component_version VALUES(?,?) ON CONFLICT(component) DO UPDATE SET version=excluded.version",
                       (component, number))


def statements(script: str) -> list[str]:
    """Split a script into complete statements (a trigger's inner semicolons do not split it)."""
    found: list[str] = []
    buffer = ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(buffer):
            found.append(buffer.strip())
            buffer = ""
    if re.sub(r"--.*", "", buffer).strip():
        found.append(buffer.strip())
    return found


_QUERY_HEAD: Final = re.compile(r"^-- (\w+) --", re.MULTILINE)


def named_queries(package: str, filename: str = "queries.sql") -> Mapping[str, str]:
    """Queries of a .sql file by name. Each begins with a line `-- name --  one sentence of purpose`."""
    text = (importlib.resources.files(package) / filename).read_text(encoding="utf-8")
    parts = _QUERY_HEAD.split(text)[1:]
    return {name: body.split("\n", 1)[1].strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}
