"""Is the database sound? Looked at after an unclean end, and whenever SQLite calls it damaged.

In: the open database. Out: silence, or `begin_anew` with what is wrong: the daemon then sets the file aside and starts
over in place. One service; costs nothing while nothing is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database

log = structlog.get_logger(__name__)

#: The start has other things to read first.
_AFTER_S: Final = 5.0


class Integrity:
    """One per daemon; owns its sentence."""

    def __init__(
        self,
        database: Database,
        *,
        was_unclean: bool,
        begin_anew: Callable[[str], None],
        after_s: float = _AFTER_S,
    ) -> None:
        self._database = database
        self._was_unclean = was_unclean
        self._begin_anew = begin_anew
        self._after_s = after_s
        self._doubt = ""

    def problems(self) -> tuple[str, ...]:
        """What a person should do, as sentences."""
        trouble = self._database.trouble
        return tuple(sentence for sentence in (self._doubt, trouble) if sentence)

    async def run(self) -> None:
        """Check once after an unclean end, then wait for trouble. Serves until cancelled."""
        if self._was_unclean:
            await asyncio.sleep(self._after_s)
            if await self._is_damaged(is_quick=True):
                return
            self._was_unclean = False
        reason = await self._database.wait_damaged()
        if await self._is_damaged(is_quick=False):
            return
        # Tables and indexes are sound: what was met lies in the words index, or in memory that lied once.
        self._doubt = f"{reason}; a check finds the file sound. If it comes again, type: msearch verify --repair"
        log.error("database in doubt", reason=reason)

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
