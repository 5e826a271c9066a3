"""Care of a SQLite file: connections, a consistent copy, an integrity check, space given back.

In: the path of a file, or a connection. Out: a copy, what is wrong, pages freed. Checks and copies run on connections of
their own, so that neither the writer nor a reader waits for them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import aiosqlite

from msearchd import errors
from msearchd.aio.sqlite_errors import BUSY_TIMEOUT_MS, DamagedDatabase, sqlite_errors

T = TypeVar("T")

#: Space is given back where more than this many pages (4 MB), and more than a tenth of the file, are free.
_SPARE_PAGES: Final = 1000


async def connect(path: Path, *pragmas: str) -> aiosqlite.Connection:
    """A connection with a thread of its own; somebody has to close it. Raises sqlite3.Error."""
    # isolation_level None: our BEGIN and COMMIT are the only ones.
    connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
    try:
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", *pragmas):
            await connection.execute_fetchall(f"PRAGMA {pragma}")  # to its end: an open statement refuses a backup
    except BaseException:
        await connection.close()
        raise
    return connection


async def on_thread(connection: aiosqlite.Connection, function: Callable[[sqlite3.Connection], T]) -> T:
    """Run *function* on the connection's thread."""
    # aiosqlite's public calls cost one thread hop per statement; its own primitive runs a whole function in one.
    # Not public API: held by tests/contracts/test_aio_sqlite.py.
    result: T = await connection._execute(function, connection._conn)  # type: ignore[no-untyped-call]  # noqa: SLF001
    return result


async def backup(path: Path, target: Path) -> None:
    """Copy the database at *path* to *target* (0600, synced), whole or not at all. Raises BadRequest, RetryLater."""
    part = target.with_name(target.name + ".part")
    if await asyncio.to_thread(target.exists):
        message = f"{target} exists already"
        raise errors.BadRequest(message, hint="name a file that is not there yet")
    try:
        # VACUUM INTO creates files with the umask's mode but writes into an empty one that is there.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        await _on_own_connection(path, lambda c: _copy_into(c, part))
        part.replace(target)
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise errors.RetryLater(message, hint="check the folder's permissions and free space") from error
    finally:
        part.unlink(missing_ok=True)


async def problems(path: Path, *, is_quick: bool) -> list[str]:
    """What an integrity check finds wrong; empty if the file is sound. Cancelled here, the check is interrupted."""
    pragma = "PRAGMA quick_check" if is_quick else "PRAGMA integrity_check"
    try:
        found = await _on_own_connection(path, lambda c: _checked(c, pragma))
    except DamagedDatabase as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _checked(c: sqlite3.Connection, pragma: str) -> list[str]:
    found = [str(row[0]) for row in c.execute(pragma)]
    if found == ["ok"] and not c.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        return ["the file has become empty"]  # SQLite calls that sound
    return found


async def _on_own_connection(path: Path, function: Callable[[sqlite3.Connection], T]) -> T:
    with sqlite_errors():
        connection = await connect(path)
        try:
            return await on_thread(connection, function)
        finally:
            if connection._conn is not None:  # noqa: SLF001
                connection._conn.interrupt()  # noqa: SLF001 - cancelled: its thread must not go on for minutes
            await connection.close()


def shrink_in(c: sqlite3.Connection, *, max_pages: int) -> int:
    """Give free pages at the end of the file back; returns how many. Nothing where the file was made without it."""
    free = int(c.execute("PRAGMA freelist_count").fetchone()[0])
    total = int(c.execute("PRAGMA page_count").fetchone()[0])
    if free < _SPARE_PAGES or free * 10 < total:
        return 0
    c.execute(f"PRAGMA incremental_vacuum({max_pages})").fetchall()
    return free - int(c.execute("PRAGMA freelist_count").fetchone()[0])


def _copy_into(connection: sqlite3.Connection, target: Path) -> None:
    connection.execute("VACUUM INTO ?", (os.fspath(target),))
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
