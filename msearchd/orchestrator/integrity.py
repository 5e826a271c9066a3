"""Is the database sound, and still there? Looked at after an unclean end, when SQLite calls it damaged, every few seconds.

    nudge (the watcher's tick) ──▶ one stat ──▶ at its place: nothing
                                      └──▶ removed, replaced, disk away: work stands still, and the status says so
                                              ├── back: goes on
                                              ├── still removed: `begin_anew`, from the user's files
                                              └── another file, at rest: `reopen`, with what lies there

In: the open database. Out: silence, or one of the two calls; the daemon then starts over in place. One service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.orchestrator.file_place import FilePlace, Seen, Standing

log = structlog.get_logger(__name__)

#: The pause while the file is not at its place: what is written now goes nowhere.
DATABASE_GONE: Final = "database-gone"
#: The start has other things to read first.
_AFTER_S: Final = 5.0
#: How often it is looked where the file is if nobody nudges.
_LOOK_EVERY_S: Final = 60.0
#: A file that is missing or another is believed after this long without a change: a person may be in the middle of a copy.
_SETTLE_S: Final = 5.0
#: After a false alarm: a full check of a large file is not free.
_REST_S: Final = 300.0


async def _nothing() -> None:
    """Of who has no queue to hold."""


class Integrity:
    """One per daemon; owns its sentence. The file must lie at its place when it is made."""

    def __init__(
        self,
        database: Database,
        *,
        was_unclean: bool,
        begin_anew: Callable[[str], None],
        reopen: Callable[[str], None] = lambda _: None,
        hold: Callable[[], Awaitable[None]] = _nothing,
        release: Callable[[], Awaitable[None]] = _nothing,
        after_s: float = _AFTER_S,
        look_every_s: float = _LOOK_EVERY_S,
        settle_s: float = _SETTLE_S,
        rest_s: float = _REST_S,
    ) -> None:
        self._database = database
        self._was_unclean = was_unclean
        self._begin_anew, self._reopen = begin_anew, reopen
        self._hold, self._release = hold, release
        self._after_s = after_s
        self._look_every_s = look_every_s
        self._settle_s = settle_s
        self._rest_s = rest_s
        self.place = FilePlace(database.path)
        self._nudged = asyncio.Event()
        self._doubt = self._absence = ""

    def problems(self) -> tuple[str, ...]:
        """What a person should do, as sentences."""
        trouble = self._database.trouble
        return tuple(sentence for sentence in (self._absence, self._doubt, trouble) if sentence)

    def nudge(self) -> None:
        """Somebody is awake anyway: look where the file is."""
        self._nudged.set()

    async def run(self) -> None:
        """Check once after an unclean end, then wait for trouble. Returns once everything is to begin anew."""
        if self._was_unclean:
            await asyncio.sleep(self._after_s)
            if await self._is_damaged(is_quick=True):
                return
            self._was_unclean = False
        while True:
            reason = await self._damage_or_look()
            seen = await asyncio.to_thread(self.place.look)
            if seen.standing is not Standing.HERE:
                if await self._is_lost(seen):
                    return
                continue
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
        damaged = asyncio.ensure_future(self._database.wait_damaged())
        nudged = asyncio.ensure_future(self._nudged.wait())
        try:
            await asyncio.wait({damaged, nudged}, timeout=self._look_every_s, return_when=asyncio.FIRST_COMPLETED)
            return damaged.result() if damaged.done() else ""
        finally:
            self._nudged.clear()
            damaged.cancel()
            nudged.cancel()

    async def _is_lost(self, seen: Seen) -> bool:
        """Hold work, and watch the place until something can be said of it. False: the file is back."""
        log.error("database not at its place", file=str(self._database.path), it_is=seen.standing.value)
        await self._quietly(self._hold())
        loop = asyncio.get_running_loop()
        since = loop.time()
        while seen.standing is not Standing.HERE:
            self._absence = _sentence(str(self._database.path), seen.standing)
            if seen.standing is not Standing.AWAY and loop.time() - since >= self._settle_s:
                self._go_on(seen.standing)
                return True
            await asyncio.sleep(min(1.0, max(self._settle_s / 2, 0.01)))
            before, seen = seen, await asyncio.to_thread(self.place.look)
            since = since if seen == before else loop.time()
        self._absence = ""
        log.info("database back at its place", file=str(self._database.path))
        await self._quietly(self._release())
        return False

    def _go_on(self, standing: Standing) -> None:
        if standing is Standing.GONE:
            self._begin_anew("its file was removed while it was in use")
        else:
            self._reopen(f"{self._database.path} was replaced by another file while it was in use")

    @staticmethod
    async def _quietly(asked: Awaitable[None]) -> None:
        """Best effort: it is written into a file that may be nowhere."""
        with contextlib.suppress(errors.MsearchError, TimeoutError):
            async with asyncio.timeout(2.0):
                await asked

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


def _sentence(path: str, standing: Standing) -> str:
    """What the status says meanwhile."""
    told = {
        Standing.GONE: "it is made anew from your files in a moment, unless it comes back",
        Standing.OTHER: "msearchd goes on with what lies there as soon as nobody writes it any more",
        Standing.AWAY: "mount it again, it goes on by itself",
    }
    return f"work stands still: the database {path} is {standing.value}; {told[standing]}"
