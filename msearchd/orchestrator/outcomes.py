"""How an attempt at a job is recorded: the job's move and the asset's state, in one transaction.

In: a job and what came of it. Out: rows. The only place that turns errors into job moves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId, AssetState
from msearchd.domain.job import Job, JobState, Outcome, Owed
from msearchd.jobs.queue import JobQueue
from msearchd.store.catalog import Catalog

#: What an asset is while jobs in these states are open; the first that applies.
_STATE_BY_OPEN_JOB: Final = (
    ((JobState.READY, JobState.RUNNING, JobState.DELAYED), AssetState.PENDING),
    ((JobState.FAILED,), AssetState.FAILED),
    ((JobState.BLOCKED,), AssetState.BLOCKED),
)


def state_from_jobs(open_jobs: dict[JobState, int]) -> AssetState | None:
    """The state that open jobs give their asset; None if nothing is open (then its content decides)."""
    for job_states, asset_state in _STATE_BY_OPEN_JOB:
        if any(open_jobs.get(state, 0) for state in job_states):
            return asset_state
    return None


class Outcomes:
    """Records what came of jobs. Shared by all lanes; owns nothing but a counter of files that became searchable."""

    def __init__(self, database: Database, catalog: Catalog, queue: JobQueue) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self.note_settled: Callable[[AssetId], None] = lambda _: None  # inside the transaction; set by the composition
        self.indexed = 0  # for the rate in the status; a transaction that runs twice counts twice, which is no matter

    async def done(
        self,
        job: Job,
        write: Callable[[sqlite3.Connection], Iterable[Owed] | None] = lambda _: None,
        *,
        skipped: str | None = None,
    ) -> Outcome:
        """Commit *write* and the end of *job* together; *write* may return steps that are owed from now on.

        *skipped*: the reason for which the file's bytes are left alone, "" if they are not; None leaves that as it is.
        Where the file changed, went or was left alone meanwhile nothing is written: it is about bytes of the past.
        """

        def finish(c: sqlite3.Connection) -> Outcome:
            if not self._queue.is_current_in(c, job):
                return self.done_in(c, job)
            return self.done_in(c, job, write(c) or (), skipped=skipped)

        outcome = await self._database.write(finish)
        self._queue.notify()
        return outcome

    def done_in(
        self, c: sqlite3.Connection, job: Job, owed: Iterable[Owed] = (), *, skipped: str | None = None
    ) -> Outcome:
        """As `done`, inside a transaction of the caller, who calls `queue.notify()` after it."""
        self._queue.enqueue_in(c, owed)
        outcome = self._queue.complete_in(c, job)
        self._settle_state_in(c, job.asset, skipped=skipped)
        return outcome

    async def not_done(self, job: Job, error: errors.MsearchError) -> None:
        """Delay, block or fail *job* as *error* says; other steps of the asset go on."""
        reason = error.sentence()

        def move(c: sqlite3.Connection) -> None:
            match error:
                case errors.NotFound():
                    self._queue.complete_in(c, job)  # the catalog forgot the file meanwhile
                case errors.Misconfigured():
                    self._queue.block_in(c, job, cause=error.key or "configuration", reason=reason)
                case errors.RetryLater():
                    self._queue.retry_in(c, job, reason, after_s=error.after_s)
                case _:
                    self._queue.fail_in(c, job, reason)
            self._settle_state_in(c, job.asset, reason=reason)

        await self._database.write(move)
        self._queue.notify()

    async def given_back(self, jobs: Sequence[Job]) -> None:
        """Make *jobs*, which were not begun, ready again; one transaction."""

        def release(c: sqlite3.Connection) -> None:
            for job in jobs:
                self._queue.release_in(c, job)

        await self._database.write(release)
        self._queue.notify()

    async def also(self, owed: Iterable[Owed]) -> None:
        """Owe more steps, besides the job at hand."""
        wanted = tuple(owed)
        if wanted:
            await self._queue.enqueue(wanted)

    async def commit(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Commit *write*, which composed `done_in`, and wake whoever waits."""
        await self._database.write(write)
        self._queue.notify()

    def settle_in(self, c: sqlite3.Connection, asset: AssetId) -> None:
        """The state of *asset* follows from its open jobs; where none moved just now."""
        self._settle_state_in(c, asset)

    async def blocked(self, job: Job, *, cause: str, reason: str) -> None:
        """Block *job* until *cause* is gone."""

        def move(c: sqlite3.Connection) -> None:
            self._queue.block_in(c, job, cause=cause, reason=reason)
            self._settle_state_in(c, job.asset, reason=reason)

        await self._database.write(move)

    def _settle_state_in(
        self, c: sqlite3.Connection, asset: AssetId, *, skipped: str | None = None, reason: str = ""
    ) -> None:
        state = state_from_jobs(self._queue.open_states_in(c, asset))
        if state is AssetState.PENDING:
            self._catalog.set_state_in(c, asset, state)
        elif state is not None:
            # The reason of an earlier failure stands if this step went well.
            self._catalog.set_state_in(c, asset, state, reason or self._queue.open_reason_in(c, asset))
        elif skipped:
            self._catalog.set_state_in(c, asset, AssetState.SKIPPED, skipped)
            self.note_settled(asset)
        elif skipped == "" or self._catalog.state_in(c, asset) is not AssetState.SKIPPED:
            self._catalog.set_state_in(c, asset, AssetState.INDEXED)
            self.indexed += 1
            self.note_settled(asset)
