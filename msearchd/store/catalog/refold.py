"""Names that an older program folded are folded anew: what a newer one finds names by, it then finds in all of them.

In: the open database. Out: rows of the two name tables, whose triggers keep their indexes. Once a database and a way of
folding (fold.FORM), some thousand ids at a time, beside all other work; killed in between, the next start begins again.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import Final, Protocol

import structlog

from msearchd.aio.sqlite import Database
from msearchd.store.catalog import fold
from msearchd.store.catalog.paths import SQL, put_dir_name

log = structlog.get_logger(__name__)

_IDS_AT_ONCE: Final = 2_000


class _Fold(Protocol):
    def __call__(self, c: sqlite3.Connection, /, *, after: int, upto: int) -> int:
        """Fold the names of some ids; how many were folded otherwise before."""
        ...


async def refold(database: Database) -> int:
    """Fold every name anew that an older program may have folded otherwise; how many were. Raises RetryLater."""
    if await database.read(lambda c: c.execute(SQL["folded_as"]).fetchone()) == (fold.FORM,):
        return 0
    found = await _all_of(database, "last_asset", _files) + await _all_of(database, "last_dir_name", _folders)
    await database.write(lambda c: c.execute(SQL["set_folded_as"], (fold.FORM,)).rowcount)
    if found:
        log.info("names folded anew", names=found)
    return found


async def _all_of(database: Database, last: str, some: _Fold) -> int:
    [end] = await database.read(lambda c: c.execute(SQL[last]).fetchone())
    found = 0
    for after in range(0, end, _IDS_AT_ONCE):
        found += await database.write(partial(some, after=after, upto=after + _IDS_AT_ONCE))
    return found


def _files(c: sqlite3.Connection, /, *, after: int, upto: int) -> int:
    changed = 0
    for id_, name, *had in c.execute(SQL["names_not_ascii"], (after, upto)).fetchall():
        key = fold.name_key(name)
        if (now := [key, fold.short_grams(key), fold.extension(key)]) != had:
            c.execute(SQL["fold_file"], (id_, *now))
            changed += 1
    return changed


def _folders(c: sqlite3.Connection, /, *, after: int, upto: int) -> int:
    changed = 0
    for id_, name, *had in c.execute(SQL["dir_names_not_ascii"], (after, upto)).fetchall():
        key = fold.name_key(name)
        if [key, fold.short_grams(key)] != had:
            put_dir_name(c, id_, name)
            changed += 1
    return changed
