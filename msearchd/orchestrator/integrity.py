"""Is the database sound, and still there? Looked at after an unclean end, and whenever SQLite calls it damaged.

In: the open database. Out: silence, or `begin_anew` with what is wrong: the daemon then sets the file aside and starts
over in place. One service; while nothing is wrong it costs one stat a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database

log = structlog.get_logger(__name__)

#: The start has other things to read first.
_AFTER_S: Final = 5.0
#: How often it is looked whether the file still lies at its place. SQLite would go on in a file that has no name.
_LOOK_EVERY_S: Final = 60.0
#: After a false alarm: a full check of a large file is not free.
_REST_S: Final = 300.0


class Integrity:
    """One per daemon; owns its sentence. The file must lie at its place when it is made."""

    def __init__(
        self,
        database: Database,
        *,
        was_unclean: bool,
        begin_anew: Callable[[str], None],
        after_s: float = _AFTER_S,
        look_every_s: float = _LOOK_EVERY_S,
        rest_s: float = _REST_S,
    ) -> None:
        self._database = database
        self._was_unclean = was_unclean
        self._begin_anew = begin_anew
        self._after_s = after_s
        self._look_every_s = look_every_s
        self._rest_s = rest_s
        self._disk = os.stat(database.path).st_dev
        self._doubt = ""

    def problems(self) -> tuple[str, ...]:
        """What a person should do, as sentences."""
        trouble = self._database.trouble
        return tuple(sentence for sentence in (self._doubt, trouble) if sentence)

    async def run(self) -> None:
        """Check once after an unclean end, then wait for trouble. Returns once everything is to begin anew."""
        if self._was_unclean:
            await asyncio.sleep(self._after_s)
            if await self._is_damaged(is_quick=True):
                return
            self._was_unclean = False
        while True:
            reason = await self._damage_or_look()
            if await self._is_gone():
                self._begin_anew("its file was removed while it was in use")
                return
            if not reason:
                continue
            if await self._is_damaged(is_quick=False):
                return
            # Tables and indexes are sound: what was met lies in the words index, or in memory that lied once.
            self._doubt = f"{reason}; a check finds the file sound. If it comes again, type: msearch verify --repair"
            log.error("database in doubt", reason=reason)
            await asyncio.sleep(self._rest_s)
            self._database.forget_damage()

    async def _damage_or_look(self) -> str:
        """What SQLite said of damage, or "" when it is time to look at the file."""
        try:
            async with asyncio.timeout(self._look_every_s):
                return await self._database.wait_damaged()
        except TimeoutError:
            return ""

    async def _is_gone(self) -> bool:
        if not await asyncio.to_thread(_is_removed, self._database.path, self._disk):
            return False
        log.error("database gone", file=str(self._database.path))
        return True

    async def _is_damaged(self, *, is_quick: bool) -> bool:
        try:
            found = await self._database.problems(is_quick=is_quick)
        except errors.RetryLater as error:
            log.warning("integrity check not done", reason=error.sentence())
            return False
        if found:
            log.error("database damaged", problems=found[:5])
            self._begin_anew(found[0])
        elif is_quick:
            log.info("database sound", after="an unclean end")
        return bool(found)


def _is_removed(file: Path, disk: int) -> bool:
    """Whether *file* is gone from a *disk* (st_dev) that is still there: an unmounted one comes back with its file."""
    if os.path.lexists(file):
        return False
    for folder in file.parents:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(folder).st_dev == disk
    return False
