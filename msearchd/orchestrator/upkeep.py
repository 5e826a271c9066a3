"""What has to be done now and then: flush when quiet, sweep what nothing refers to, look for what was missing.

Sleeps until the queue changes or something is due: an idle daemon wakes a few times a minute at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.recovery import Recovery
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog
from msearchd.store.catalog.refold import refold

log = structlog.get_logger(__name__)

#: Flush after this long without a change, and at the latest after this long with changes.
_QUIET_S: Final = 3.0
_AT_LATEST_S: Final = 30.0
_SWEEP_EVERY_S: Final = 3600.0
_SWEEP_GROUP: Final = 500
_LOOK_EVERY_S: Final = 60.0


class Upkeep:
    """One service; owns the times of its own duties."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        queue: JobQueue,
        spaces: Spaces,
        recovery: Recovery,
        grace_s: float,
        sample: Callable[[], None],
        sweep_backups: Callable[[], Awaitable[None]],
        look: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._spaces = spaces
        self._recovery = recovery
        self._grace_s = grace_s
        self._sample = sample
        self._sweep_backups = sweep_backups
        self._look = look

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._sweep_backups()  # of an earlier daemon: nobody else knows where they are
        with contextlib.suppress(
            errors.MsearchError
        ):  # else at the next start; of damage others hear from the database
            await refold(self._database)
        loop = asyncio.get_running_loop()
        flushed = swept = looked = loop.time()
        while True:
            seen = self._queue.changes_seen()
            is_quiet = await self._is_quiet(seen)
            now = loop.time()
            self._sample()
            with contextlib.suppress(errors.RetryLater):  # the store or the disk is down: again at the next turn
                if is_quiet or now - flushed > _AT_LATEST_S:
                    flushed = now
                    await self._spaces.settle()
                    if is_quiet:
                        await self._database.checkpoint()
                        await self._shrink(seen)
                if now - looked > _LOOK_EVERY_S:
                    looked = now
                    await self._look()
                if now - swept > _SWEEP_EVERY_S:
                    swept = now
                    await self.sweep()
            if is_quiet:
                # Nothing to flush: sleep until something happens, or the next duty.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._queue.wait_change(self._queue.changes_seen())

    async def _shrink(self, seen: int) -> None:
        """Give back the space of what is done, a little at a time, as long as nobody has work."""
        freed = True
        while freed and self._queue.changes_seen() == seen:
            freed = bool(await self._database.shrink())
            await asyncio.sleep(0.1 if freed else 0)

    async def sweep(self) -> int:
        """Forget contents and files whose grace is over, with their points; return how many contents."""
        now_ms = time.time_ns() // 1_000_000
        total = 0
        while due := await self._catalog.sweepable(now_ms, self._grace_s, _SWEEP_GROUP):

            def forget(c: sqlite3.Connection, rows: list[int] = [row.id for row in due]) -> int:  # noqa: B006 - bound on purpose
                return sum(self._catalog.forget_content_in(c, row) is not None for row in rows)  # type: ignore[arg-type]

            forgotten = await self._database.write(forget)
            await self._recovery.finish_sweeps()
            total += forgotten
            if not forgotten:
                break
        before_ms = now_ms - int(self._grace_s * 1000)
        while await self._database.write(lambda c: self._catalog.purge_gone_in(c, before_ms=before_ms)):
            pass
        if total:
            log.info("swept", contents=total)
        return total

    async def _is_quiet(self, seen: int) -> bool:
        """True once nothing changed for _QUIET_S; False as soon as something does."""
        try:
            async with asyncio.timeout(_QUIET_S):
                await self._queue.wait_change(seen)
        except TimeoutError:
            return True
        # Changes come in bursts: one look a second is enough for the rates, and costs nothing.
        await asyncio.sleep(1.0)
        return False
