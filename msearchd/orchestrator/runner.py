"""Runs claimed jobs: picks the step, gives it its time, and has the outcome recorded.

In: jobs of a lane. Out: every one of them done, delayed, blocked or failed; only a bug leaves as an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, Step
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.progress import PaceMeter

log = structlog.get_logger(__name__)

StepFunction = Callable[[Job], Awaitable[None]]
#: Says what is done of jobs that run, in words.
TellDone = Callable[[Mapping[Job, str]], None]
GroupFunction = Callable[[Sequence[Job], Callable[[Sequence[Job]], AbstractContextManager[TellDone]]], Awaitable[None]]
#: Hears of every job that did not go well: the job, and why.
Tell = Callable[[Job, errors.MsearchError], Awaitable[None]]


#: What is done of a job whose group is in work, before its own turn comes.
_WAITS: Final = "waits for its turn in the group"


@dataclass(frozen=True, slots=True)
class InWork:
    """A job that runs now."""

    asset: AssetId
    step: Step
    since_s: float  # monotonic: its begin, or that of the request that it travels in
    doing: str = ""  # what is done of it, in words


def ended_as(error: errors.MsearchError) -> str:
    """What becomes of a job that met *error*, for events. Pure; a job delayed too often ends as failed all the same."""
    match error:
        case errors.Misconfigured():
            return "blocked"
        case errors.RetryLater():
            return "delayed"
        case _:
            return "failed"


class Runner:
    """One per daemon; remembers what runs now, for the status."""

    def __init__(self, outcomes: Outcomes, steps: Mapping[Step, StepFunction], *, tell: Tell) -> None:
        self._outcomes = outcomes
        self._steps = steps
        self._tell = tell
        self._in_work: dict[int, InWork] = {}
        self.paces = PaceMeter()

    @property
    def in_work(self) -> tuple[InWork, ...]:
        """What runs now: what waits in a group last, else oldest first."""
        return tuple(sorted(self._in_work.values(), key=lambda work: (work.doing == _WAITS, work.since_s)))

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

    async def run_group(self, jobs: Sequence[Job], work: GroupFunction) -> None:
        """Run a group that records its own outcomes; what still escapes fails the jobs that are left.

        *work* enters its second argument for those it has in hand, and tells it what is done of them: of a group of many, few
        run at one time.
        """
        try:
            await work(jobs, self._noted)
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
        with contextlib.suppress(errors.RetryLater):  # it is written down; an event is an extra, and no lane's end
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

    @contextlib.contextmanager
    def _noted(self, jobs: Sequence[Job]) -> Iterator[TellDone]:
        now = time.monotonic()
        kinds = [(job.step.value, job.target) for job in jobs]
        for job in jobs:
            self._in_work[job.id] = InWork(job.asset, job.step, now, "" if len(jobs) == 1 else _WAITS)
        self.paces.begin(kinds, now=now)
        try:
            yield self._tell_done
        finally:
            self.paces.end(kinds, now=time.monotonic())
            for job in jobs:
                self._in_work.pop(job.id, None)

    def _tell_done(self, jobs: Mapping[Job, str]) -> None:
        now = time.monotonic()
        for job, doing in jobs.items():
            if job.id in self._in_work:
                self._in_work[job.id] = InWork(job.asset, job.step, now, doing)
