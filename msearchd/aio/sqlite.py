"""SQLite for one process: one task owns the only write connection, readers have their own.

In: operations, plain functions of a `sqlite3.Connection`. Out: their results, acknowledged after COMMIT.
All operations that arrive in one tick share one transaction (29-51k acknowledged single enqueues a second against
5-9k one by one). Two tasks on one connection lose acknowledged updates, and a cancelled statement leaks its effect: so
nobody else ever touches the write connection, and a cancelled caller's operation still runs to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import structlog

from msearchd import errors
from msearchd.aio import sqlite_care
from msearchd.aio.sqlite_care import connect, on_thread
from msearchd.aio.sqlite_errors import DamagedDatabase, sqlite_errors, translated
from msearchd.aio.sqlite_schema import migrate, named_queries, statements
from msearchd.aio.sqlite_transaction import Operation, checkpoint, in_one_snapshot, in_one_transaction

__all__ = [
    "DamagedDatabase",
    "Database",
    "Operation",
    "migrate",
    "named_queries",
    "sqlite_errors",
    "statements",
    "translated",
]

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: Bounds one transaction (about 30 ms of work), so that a reader of the WAL and the next tick wait no longer.
_GROUP_MAX: Final = 2000
#: 4000 pages halve the p99 of commits against 1000 (research: checkpoint stalls); the size limit returns the rest.
_AUTOCHECKPOINT_PAGES: Final = 4000
_JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
#: A log that readers kept from beginning anew is emptied at this size, in a moment without readers.
_LOG_MAX_BYTES: Final = 128 * 1024 * 1024
_LOG_LOOK_EVERY: Final = 64
_LOG_PATIENCE_S: Final = 2.0
#: Quiet time after which commits are synced to the disk: what a power cut can undo is younger than this.
_IDLE_S: Final = 3.0
#: Free pages given back in one transaction: about 5 ms.
_SHRINK_PAGES: Final = 500


#: What a caller handed in, and where the result goes. A tuple: there are 50,000 of them a second.
_Pending = tuple[Operation[Any], asyncio.Future[Any]]


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
        self._groups = 0
        self._trouble = ""
        self._damage = ""
        self._is_damaged = asyncio.Event()
        self._owner = asyncio.create_task(self._own_writer(), name="sqlite-writer")

    @classmethod
    async def open(cls, path: Path, *, is_durable: bool = False, readers: int = 2) -> Database:
        """Open or create the file (mode 0600).

        With *is_durable* every commit is synced to the disk (FULL); else commits survive any process death, and a power
        cut may undo the last seconds without damage (NORMAL), which the scan at start finds again.
        Raises Misconfigured when the file is no database or cannot be opened.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            message = f"cannot open {path}: {error.strerror}"
            hint = "check the folder's permissions and free space"
            raise errors.Misconfigured(message, key="data_dir", hint=hint) from error
        synchronous = "FULL" if is_durable else "NORMAL"
        opened: list[aiosqlite.Connection] = []
        try:
            with sqlite_errors():
                opened.append(
                    await connect(
                        path,
                        "auto_vacuum=INCREMENTAL",  # takes effect where the file is new: before its first page
                        "journal_mode=WAL",
                        f"synchronous={synchronous}",
                        "foreign_keys=ON",
                        f"wal_autocheckpoint={_AUTOCHECKPOINT_PAGES}",
                        f"journal_size_limit={_JOURNAL_LIMIT_BYTES}",
                    )
                )
                for _ in range(readers):
                    opened.append(await connect(path, "query_only=ON"))  # noqa: PERF401 - each is to be closed if a later one fails
        except BaseException:
            for connection in opened:  # a connection left open has a thread that keeps the process from ending
                await connection.close()
            raise
        return cls(path, opened[0], opened[1:])

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Hand *operation* in for the next transaction; as `write`, for callers who outlive their cancellation."""
        self._refuse_if_closing()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((operation, future))
        self._wake.set()
        return future

    async def write(self, operation: Operation[T]) -> T:
        """Run *operation* in the next transaction and return its result after COMMIT.

        It must be a function of the connection alone: where a neighbour in the same transaction fails, it is run again.
        An exception undoes only its own operation. Cancelled here, it still runs to its end.
        Raises what it raises; RetryLater where the disk is full, locked or failing.
        """
        return await self.submit(operation)

    async def read(self, operation: Operation[T]) -> T:
        """Run *operation* on a read-only connection, beside the writer, in one snapshot.

        Sees everything acknowledged before. Cancelled here, its statement is interrupted.
        """
        self._refuse_if_closing()
        connection = await self._readers.get()
        try:
            self._refuse_if_closing()  # meanwhile
        except errors.RetryLater:
            self._readers.put_nowait(connection)
            raise
        reading = asyncio.ensure_future(on_thread(connection, lambda c: in_one_snapshot(c, operation)))
        reading.add_done_callback(lambda _: self._readers.put_nowait(connection))
        try:
            with sqlite_errors():
                return await asyncio.shield(reading)
        except DamagedDatabase as error:
            self._noted(error)
            raise
        except asyncio.CancelledError:
            # The connection is ours until the callback above runs: nobody else's statement can be hit.
            if not reading.done():
                connection._conn.interrupt()  # noqa: SLF001
                reading.add_done_callback(_forget_outcome)
            raise

    def _noted(self, error: BaseException) -> BaseException:
        if isinstance(error, DamagedDatabase) and not self._damage:
            self._damage = str(error)
            self._is_damaged.set()
        return error

    def _refuse_if_closing(self) -> None:
        if self._is_closing:
            message = "the database is closing"
            raise errors.RetryLater(message)

    async def checkpoint(self) -> None:
        """Sync everything committed so far to the disk and shorten the WAL. Done by itself when idle."""
        if not self._needs_checkpoint:
            return
        with sqlite_errors():
            if await on_thread(self._writer, checkpoint):
                self._needs_checkpoint = False

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to *target* (mode 0600, synced) while work goes on. It appears whole or not at all.

        Raises BadRequest where *target* exists; RetryLater where it cannot be written now.
        """
        await sqlite_care.backup(self.path, target)

    async def problems(self, *, is_quick: bool = True) -> list[str]:
        """What an integrity check finds wrong with the file; empty if it is sound. The quick one leaves indexes out.

        On a connection of its own: it may take seconds, and readers go on.
        """
        return await sqlite_care.problems(self.path, is_quick=is_quick)

    @property
    def trouble(self) -> str:
        """Why the last transaction could not be written, as a sentence; empty once one was."""
        return self._trouble

    async def wait_damaged(self) -> str:
        """Return what SQLite said once it has called the file damaged in an operation."""
        await self._is_damaged.wait()
        return self._damage

    def forget_damage(self) -> None:
        """The file was checked and found sound: `wait_damaged` waits for the next time."""
        self._damage = ""
        self._is_damaged.clear()

    async def shrink(self, *, max_pages: int = _SHRINK_PAGES) -> int:
        """Give up to *max_pages* free pages back to the file system where a tenth of the file is free; returns how many.

        A few milliseconds; call it when quiet, until it returns 0.
        """
        return await self.write(lambda c: sqlite_care.shrink_in(c, max_pages=max_pages))

    async def close(self) -> None:
        """Finish what was handed in, checkpoint, close all connections (a forgotten one would hang the exit)."""
        if self._is_closing and self._owner.done():
            return
        self._is_closing = True
        self._wake.set()
        await asyncio.gather(self._owner, return_exceptions=True)
        try:
            with contextlib.suppress(errors.MsearchError):
                await self.checkpoint()
        finally:
            for reader in self._all_readers:
                await reader.close()  # after what its thread still runs
            await self._writer.close()

    async def _own_writer(self) -> None:
        try:
            while not (self._is_closing and not self._pending):
                await self._wait_for_work()
                self._wake.clear()
                while self._pending:
                    group, self._pending = self._pending[:_GROUP_MAX], self._pending[_GROUP_MAX:]
                    await self._run(group)
        finally:
            # Only a cancelled owner gets here with work left (the loop is ending): nobody would ever answer it.
            self._is_closing = True
            for _, future in self._pending:
                if not future.done():
                    future.set_exception(errors.RetryLater("the database is closing"))

    async def _wait_for_work(self) -> None:
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(_IDLE_S if self._needs_checkpoint else None):
                    await self._wake.wait()
            except TimeoutError:
                try:
                    await self.checkpoint()
                except errors.MsearchError as error:
                    # Commits stand in the WAL as before; the next quiet moment tries again.
                    log.warning("checkpoint failed", reason=error.sentence())
                    return await self._wait_unsynced()
        return None

    async def _wait_unsynced(self) -> None:
        await self._wake.wait()

    async def _run(self, group: list[_Pending]) -> None:
        operations = [operation for operation, _ in group]
        outcomes: list[Any]
        running = asyncio.ensure_future(on_thread(self._writer, lambda c: in_one_transaction(c, operations)))
        try:
            outcomes = await asyncio.shield(running)
        except asyncio.CancelledError:
            for _, future in group:
                if not future.done():
                    future.set_exception(errors.RetryLater("the database is closing"))
            running.add_done_callback(_forget_outcome)
            raise
        except Exception as error:  # noqa: BLE001 - the callers hear of it, the owner goes on
            outcomes = [error] * len(group)
        self._needs_checkpoint = True
        self._note_trouble(outcomes)
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():  # the caller was cancelled; the effect stands
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(self._noted(translated(outcome)))
            else:
                future.set_result(outcome)
        await self._bound_log()

    def _note_trouble(self, outcomes: list[Any]) -> None:
        if all(isinstance(outcome, sqlite3.Error) for outcome in outcomes):
            found = translated(outcomes[0])
            self._trouble = found.sentence() if isinstance(found, errors.RetryLater) else self._trouble
        else:
            self._trouble = ""

    async def _bound_log(self) -> None:
        """Empty a log that grew because there was always a reader: the next reads wait for a moment."""
        self._groups += 1
        if self._groups % _LOG_LOOK_EVERY or _size_of(self.path.with_name(self.path.name + "-wal")) < _LOG_MAX_BYTES:
            return
        held: list[aiosqlite.Connection] = []
        try:
            async with asyncio.timeout(_LOG_PATIENCE_S):
                while len(held) < len(self._all_readers):
                    held.append(await self._readers.get())
            with sqlite_errors():
                await on_thread(self._writer, checkpoint)
        except (TimeoutError, errors.MsearchError) as error:
            log.warning("log not shortened", reason=str(error) or "somebody reads for long")
        finally:
            for reader in held:
                self._readers.put_nowait(reader)


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _forget_outcome(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # seen: nobody else will look
