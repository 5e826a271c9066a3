"""SQLite's errors as our verbs, by its result codes (https://sqlite.org/rescode.html). Never by the wording alone."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from msearchd import errors

#: How long a statement waits for another program's lock before it is RetryLater.
BUSY_TIMEOUT_MS: Final = 5000
#: Primary result codes that pass by themselves or when somebody makes room.
_PASSING: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HINTS: Final = {
    sqlite3.SQLITE_FULL: "free some space on the disk of data_dir; it goes on by itself",
    sqlite3.SQLITE_READONLY: "make the files in data_dir writable; it goes on by itself",
    sqlite3.SQLITE_IOERR: "check the disk of data_dir (full? failing?); it goes on by itself",
}


def translated(error: BaseException) -> BaseException:
    """A foreign SQLite error as one of our verbs; anything else as it is."""
    if isinstance(error, errors.MsearchError) or not isinstance(error, sqlite3.Error):
        return error
    # Extended codes carry the primary one in their low byte. Errors of the Python module itself have none.
    code = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF
    new: errors.MsearchError
    if code in _DAMAGED:
        new = DamagedDatabase(
            f"the database is damaged: {error}",
            key="database",
            hint="stop the daemon and move the database aside; the next start builds the index anew from your files",
        )
    elif code in _PASSING or "rolled back inside" in str(error):
        new = errors.RetryLater(
            f"the database cannot be used now: {error}", after_s=5.0, hint=_HINTS.get(code, "it is retried by itself")
        )
    else:
        new = errors.Bug(f"{type(error).__name__}: {error}")
    new.__cause__ = error
    return new


class DamagedDatabase(errors.Misconfigured):
    """SQLite calls the file damaged, or no database. The index can be made anew from the user's files."""


@contextlib.contextmanager
def sqlite_errors() -> Iterator[None]:
    """Translate sqlite3 errors raised inside."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error
