"""The persistent job queue: what is owed for which asset, who works on it, what waits for what.

In: steps owed, claims, ends of attempts. Out: jobs, counts, reasons. Acknowledged after COMMIT.
Guarantees: nothing owed is lost by any process death; no asset is worked on twice at once; a change during work runs
again; a file that kills its process ends in failed; an outage only delays. Never decides what a step does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database, migrate
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, JobId, Outcome, Owed, Step
from msearchd.jobs import retry
from msearchd.jobs.changes import Changes
from msearchd.jobs.claim import Wanted, claim_in, is_claimable_in
from msearchd.jobs.gathered import Gathered
from msearchd.jobs.looks import blocked_reasons_in, is_idle_in, timed_counts_in
from msearchd.jobs.moves import SQL, JobMoves
from msearchd.jobs.overview import Overview, overview_in
from msearchd.jobs.rows import BlockedReason, HistoryRow, JobRow, QueueCounts
from msearchd.jobs.turns import kept_places
from msearchd.settings.model import QueueSettings

__all__ = ["BlockedReason", "HistoryRow", "JobQueue", "JobRow", "QueueCounts"]

log = structlog.get_logger(__name__)

#: Rows moved in one transaction by wake, promote and retry: about 30 ms, so that a claim behind it waits no longer.
_GROUP: Final = 5000
#: Counts that took longer than this to read are used again for 20 times as long: at most 5 % of a core goes to them.
_COSTLY_S: Final = 0.02
_COUNTS_KEPT: Final = 20


class JobQueue(JobMoves):
    """The queue of one database. `*_in` functions (JobMoves) take part in a caller's transaction; the rest commit."""

    def __init__(self, database: Database, settings: QueueSettings, *, now_ms: Callable[[], int]) -> None:
        super().__init__(settings, now_ms=now_ms)
        self._database = database
        self._changes = Changes()
        self._owing = Gathered(database, self._enqueue_lists_in, then=self.notify)
        self._completing = Gathered(database, self.complete_all_in, then=self.notify)
        self._claimed_by_lane: dict[tuple[Wanted, ...], int] = {}
        self._may_be_due = asyncio.Event()
        self._promoting: asyncio.Task[None] | None = None
        self._counts: tuple[float, QueueCounts] | None = None

    async def open(self) -> list[tuple[AssetId, Step, str]]:
        """Migrate; give back what a dead process had claimed; start the timer of delayed jobs.

        Returns the (asset, step, target) of jobs that have failed because they killed their process too often.
        """
        await migrate(self._database, component="jobs", package="msearchd.jobs.sql")
        killed = await self._database.write(self.return_running_in)
        for asset, step, target in killed:
            log.warning("job failed", asset=asset, step=step.value, target=target, reason="killed its worker too often")
        self._promoting = asyncio.create_task(self._promote_due(), name="queue-timer")
        return killed

    async def close(self) -> None:
        """End the timer. Nothing is lost: delayed jobs wait in the table."""
        if self._promoting is not None:
            self._promoting.cancel()
            await asyncio.gather(self._promoting, return_exceptions=True)

    # -- owing ---------------------------------------------------------------------------------------------------------

    async def enqueue(self, owed: Sequence[Owed]) -> None:
        """Owe steps; see `enqueue_in`. Durable on return; cancelled here, they may be owed or not."""
        await self._owing.add(owed)

    def _enqueue_lists_in(self, c: sqlite3.Connection, lists: list[Sequence[Owed]]) -> list[None]:
        self.enqueue_in(c, itertools.chain.from_iterable(lists))
        return [None] * len(lists)

    # -- work ----------------------------------------------------------------------------------------------------------

    async def claim(self, *, steps: Sequence[Wanted], limit: int, owner: str) -> list[Job]:
        """Take up to *limit* ready jobs of *steps* (target None: any), the oldest of the best priority first.

        Places are kept for the lower priorities (see turns); while paused only interactive jobs are given.
        Nobody else works on their assets until they end. Committed on return; cancelled here, they are ready again.
        """
        lane = tuple(steps)
        claimed = self._claimed_by_lane.get(lane, 0)
        self._claimed_by_lane[lane] = claimed + limit  # before the wait: callers of one tick get different places
        kept = kept_places(claimed, limit)
        serial = next(self._serials)
        claiming = self._database.submit(
            lambda c: claim_in(c, steps=lane, limit=limit, kept=kept, owner=owner, serial=serial, now_ms=self._now_ms())
        )
        try:
            jobs = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(self._give_back)
            raise
        self._claimed_by_lane[lane] -= limit - len(jobs)
        return jobs

    async def complete(self, job: Job) -> Outcome:
        """See `complete_in`."""
        return await self._completing.add(job)

    async def retry(self, job: Job, error: str, *, after_s: float | None = None) -> Outcome:
        """See `retry_in`."""
        return await self._end(lambda c: self.retry_in(c, job, error, after_s=after_s))

    async def fail(self, job: Job, error: str) -> Outcome:
        """See `fail_in`."""
        return await self._end(lambda c: self.fail_in(c, job, error))

    async def block(self, job: Job, *, cause: str, reason: str) -> Outcome:
        """See `block_in`."""
        return await self._end(lambda c: self.block_in(c, job, cause=cause, reason=reason))

    async def release(self, job: Job) -> None:
        """See `release_in`."""
        await self._database.write(lambda c: self.release_in(c, job))
        self.notify()

    async def _end(self, move: Callable[[sqlite3.Connection], Outcome]) -> Outcome:
        outcome = await self._database.write(move)
        self.notify()
        return outcome

    def _give_back(self, claiming: asyncio.Future[list[Job]]) -> None:
        if claiming.cancelled() or claiming.exception() is not None:
            return
        jobs = claiming.result()

        def release(c: sqlite3.Connection) -> None:
            for job in jobs:
                self.release_in(c, job)

        # Where the database closes or fails first, the next start gives them back.
        with contextlib.suppress(errors.RetryLater):
            self._database.submit(release).add_done_callback(self._given_back)

    def _given_back(self, releasing: asyncio.Future[None]) -> None:
        if not releasing.cancelled() and (error := releasing.exception()) is not None:
            log.warning("a cancelled claim was not given back", reason=str(error))
        self.notify()

    # -- waking --------------------------------------------------------------------------------------------------------

    async def wake(self, cause: str) -> int:
        """Make the jobs blocked on *cause* ready; return how many. Jobs that run and block on it later do not sleep."""
        # Before the write: a job that blocks in the same transaction sees it.
        self._woken[cause] = next(self._serials)
        return await self._walk(SQL["wake"], {"cause": cause})

    async def retry_failed(self, asset: AssetId | None = None) -> int:
        """Make failed jobs (of *asset*) ready, with all their attempts; return how many."""
        if asset is None:
            return await self._walk(SQL["retry_failed"], {})
        arguments = {"asset": asset, "now": self._now_ms()}
        count = await self._database.write(lambda c: c.execute(SQL["retry_failed_of"], arguments).rowcount)
        self.notify()
        return count

    async def _walk(self, query: str, arguments: dict[str, object]) -> int:
        total, after = 0, 0
        while True:
            group = {**arguments, "after": after, "limit": _GROUP, "now": self._now_ms()}
            numbers = await self._database.write(lambda c, g=group: c.execute(query, g).fetchall())  # type: ignore[misc]
            if numbers:
                self.notify()
                total += len(numbers)
                after = max(number for (number,) in numbers)
            if len(numbers) < _GROUP:
                return total

    async def pause(self, reason: str) -> None:
        """Claim nothing but interactive jobs until *reason* is lifted, also after a restart. Twice is once."""
        arguments = {"reason": reason, "now": self._now_ms()}
        await self._database.write(lambda c: c.execute(SQL["pause"], arguments).rowcount)
        self.notify()

    async def resume(self, reason: str | None) -> None:
        """Lift one pause, or all of them with None."""
        query = SQL["resume_all"] if reason is None else SQL["resume"]
        await self._database.write(lambda c: c.execute(query, {"reason": reason}).rowcount)
        self.notify()

    async def pauses(self) -> tuple[str, ...]:
        """The reasons that are on, oldest first."""
        return await self._database.read(lambda c: tuple(row[0] for row in c.execute(SQL["pauses"])))

    # -- waiting -------------------------------------------------------------------------------------------------------

    def notify(self) -> None:
        """Say that rows changed; to be called on the loop after every commit that composed `*_in` functions."""
        self._changes.notify()
        self._may_be_due.set()

    def changes_seen(self) -> int:
        """A number for `wait_change`, taken before looking."""
        return self._changes.seen()

    async def wait_change(self, seen: int) -> None:
        """Return once something happened after *seen* was taken; at once if it already has."""
        await self._changes.after(seen)

    async def wait_ready(self, steps: Sequence[Wanted] | None = None) -> None:
        """Return once a claim for *steps* (None: of any step) would find a job."""
        wanted = tuple(steps) if steps is not None else tuple((step, None) for step in Step)
        while True:
            seen = self._changes.seen()
            if await self._database.read(lambda c: is_claimable_in(c, steps=wanted)):
                return
            await self._changes.after(seen)

    async def idle_for(self, assets: Collection[AssetId] | None, *, deadline_s: float) -> bool:
        """Wait until each of *assets* (None: all) has once had no ready or running job; False if the time ends first.

        Delayed, blocked and failed jobs are not waited for: they have told why they wait.
        """
        waiting = None if assets is None else list(assets)
        due = asyncio.get_running_loop().time() + deadline_s
        while True:
            seen = self._changes.seen()
            if await self._database.read(lambda c: is_idle_in(c, waiting)):
                return True
            try:
                async with asyncio.timeout_at(due):
                    await self._changes.after(seen)
            except TimeoutError:
                return False

    async def _promote_due(self) -> None:
        """Make delayed jobs ready at their time. One timer to the next of them, set anew when one is nearer."""
        due_ms = self._now_ms()
        while True:
            try:
                await self._promote_all(due_ms)
            except errors.RetryLater as error:
                log.warning("delayed jobs cannot be looked at now", reason=str(error))
                self._next_due_ms = self._now_ms() + round(error.after_s * 1000)
            due_ms = await self._wait_until_due()

    async def _promote_all(self, due_ms: int) -> None:
        """Promote what is due by the clock or by *due_ms*, and note when the next is."""
        while True:
            now = self._now_ms()
            arguments = {
                "now": now,
                "due": max(now, due_ms),
                "limit": _GROUP,
                "horizon": retry.horizon_ms(self._settings, now),
            }

            def promote(c: sqlite3.Connection, arguments: dict[str, int] = arguments) -> int:
                count = c.execute(SQL["promote"], arguments).rowcount
                # In the same transaction, on the same thread as retry_in: no nearer time slips in between.
                self._next_due_ms = c.execute(SQL["next_due"]).fetchone()[0]
                return count

            count = await self._database.write(promote)
            if count:
                self._changes.notify()
            if count < _GROUP:
                return

    async def _wait_until_due(self) -> int:
        """Sleep until the next delayed job is due, or a nearer one appears; return the time that was aimed at.

        The time is stored by the wall clock and slept by the monotonic one: set back while we sleep, the clock delays
        nothing (what was due by the old one is promoted); set forward, the next change of the queue notices it.
        """
        loop = asyncio.get_running_loop()
        aimed_ms: int | None = None
        wake_at: float | None = None
        while True:
            if self._next_due_ms != aimed_ms:
                aimed_ms = self._next_due_ms
                wake_at = None if aimed_ms is None else loop.time() + max(0.0, (aimed_ms - self._now_ms()) / 1000)
            if aimed_ms is not None and wake_at is not None and (self._now_ms() >= aimed_ms or loop.time() >= wake_at):
                return aimed_ms
            self._may_be_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._may_be_due.wait()

    # -- telling -------------------------------------------------------------------------------------------------------

    async def counts(self) -> QueueCounts:
        """Jobs by state. Exact; where reading them is costly (from about 200,000 jobs), up to a few seconds old."""
        now = time.monotonic()
        if self._counts is not None and now < self._counts[0]:
            return self._counts[1]
        counts, took_s = await self._database.read(timed_counts_in)
        if took_s > _COSTLY_S:
            self._counts = (time.monotonic() + took_s * _COUNTS_KEPT, counts)
        return counts

    async def overview(self, *, reasons: int = 10) -> Overview:
        """The queue in numbers, for a person: see overview.py."""
        now_ms = self._now_ms()
        return await self._database.read(lambda c: overview_in(c, now_ms=now_ms, reasons=reasons))

    async def failures(self, *, limit: int = 100, after: JobId | None = None) -> list[JobRow]:
        """Failed jobs, oldest first, after job number *after*."""
        return await self._rows(SQL["failures"], {"after": after or 0, "limit": limit})

    async def troubles(self, *, limit: int = 100, before: JobId | None = None) -> list[JobRow]:
        """Failed and blocked jobs, newest first, before job number *before*."""
        return await self._rows(SQL["troubles"], {"before": before or 1 << 62, "limit": limit})

    async def blocked_reasons(self) -> list[BlockedReason]:
        """What jobs wait for, one row for each cause."""
        return await self._database.read(blocked_reasons_in)

    async def running(self) -> list[JobRow]:
        """What is claimed now."""
        return await self._rows(SQL["running"], {})

    async def jobs_of(self, asset: AssetId) -> list[JobRow]:
        """What is owed for an asset."""
        return await self._rows(SQL["jobs_of"], {"asset": asset})

    async def history_of(self, asset: AssetId, *, limit: int = 100) -> list[HistoryRow]:
        """How the last attempts for an asset ended, newest first, as far as the history reaches back."""
        arguments = {"asset": asset, "limit": limit}
        return await self._database.read(
            lambda c: [HistoryRow.of(row) for row in c.execute(SQL["history_of"], arguments)]
        )

    async def _rows(self, query: str, arguments: dict[str, object]) -> list[JobRow]:
        return await self._database.read(lambda c: [JobRow.of(row) for row in c.execute(query, arguments)])
