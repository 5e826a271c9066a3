"""Runs claimed jobs: picks the step, gives it its time, and has the outcome recorded.

In: jobs of a lane. Out: every one of them done, delayed, blocked or failed; only a bug leaves as an exception.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from msearchd import errors
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, Step
from msearchd.orchestrator.outcomes import Outcomes

log = structlog.get_logger(__name__)

StepFunction = Callable[[Job], Awaitable[None]]
#: Hears of every job that did not go well: the job, and why.
Tell = Callable[[Job, errors.MsearchError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class InWork:
    """A job that runs now."""

    asset: AssetId
    step: Step
    since_s: float  # monotonic


class Runner:
    """One per daemon; remembers what runs now, for the status."""

    def __init__(self, outcomes: Outcomes, steps: Mapping[Step, StepFunction], *, tell: Tell) -> None:
        self._outcomes = outcomes
        self._steps = steps
        self._tell = tell
        self._in_work: dict[int, InWork] = {}

    @property
    def in_work(self) -> tuple[InWork, ...]:
        """What runs now, oldest first."""
        return tuple(sorted(self._in_work.values(), key=lambda work: work.since_s))

    async def run_each(self, jobs: Sequence[Job]) -> None:
        """Run jobs one after the other, each by its step."""
        for job in jobs:
            await self.run_one(job)

    async def run_one(self, job: Job) -> None:
        """Run one job and record what came of it."""
        with self._noted([job]):
            try:
                await self._steps[job.step](job)
            except Exception as error:  # noqa: BLE001 - one odd file must not stop the others (rank 2); told loudly
                await self._not_done(job, error)

    async def run_group(self, jobs: Sequence[Job], work: Callable[[Sequence[Job]], Awaitable[None]]) -> None:
        """Run a group that records its own outcomes; what still escapes fails the jobs that are left."""
        with self._noted(jobs):
            try:
                await work(jobs)
            except Exception as error:  # noqa: BLE001 - as above
                for job in jobs:
                    await self._not_done(job, error)

    async def _not_done(self, job: Job, error: Exception) -> None:
        if not isinstance(error, errors.MsearchError) or isinstance(error, errors.Bug):
            log.error("step is broken", job=job.id, step=job.step, asset=job.asset, exc_info=error)
            error = errors.BadAsset(f"internal error: {type(error).__name__}: {error}", hint="please report this")
        log.info(
            "job not done",
            job=job.id,
            step=job.step,
            asset=job.asset,
            attempt=job.attempts,
            code=error.code,
            reason=error.sentence(),
        )
        await self._record(job, error)
        await self._tell(job, error)

    async def _record(self, job: Job, error: errors.MsearchError) -> None:
        """Write it down, however long that takes: while nothing can be written, this lane claims nothing more."""
        while True:
            try:
                await self._outcomes.not_done(job, error)
            except errors.RetryLater as trouble:
                log.warning("an outcome cannot be written, waiting", job=job.id, reason=trouble.sentence())
                await asyncio.sleep(trouble.after_s)
            else:
                return

    def _noted(self, jobs: Sequence[Job]) -> _Noted:
        return _Noted(self._in_work, jobs)


class _Noted:
    """Keeps jobs in the table of running work while they run."""

    def __init__(self, table: dict[int, InWork], jobs: Sequence[Job]) -> None:
        self._table, self._jobs = table, jobs

    def __enter__(self) -> None:
        now = time.monotonic()
        for job in self._jobs:
            self._table[job.id] = InWork(job.asset, job.step, now)

    def __exit__(self, *_: object) -> None:
        for job in self._jobs:
            self._table.pop(job.id, None)
