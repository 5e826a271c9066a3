"""Claims jobs lane by lane and runs them, a bounded number at a time.

In: lanes (which steps, how many at once, how many together) and the queue. Out: calls of each lane's run function.
Back-pressure is that nothing is claimed. Lanes of models that do not fit into memory together take turns (model_turns.py).
Never decides what becomes of a job: the run functions record that themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from msearchd import errors
from msearchd.domain.job import Job, Step
from msearchd.domain.space import ModelKey
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.model_turns import ModelTurns

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A bounded place where one kind of work runs."""

    name: str
    steps: tuple[tuple[Step, str | None], ...]
    run: Callable[[Sequence[Job]], Awaitable[None]]
    concurrency: int  # calls of `run` at once
    group: int = 1  # jobs in one call
    #: Jobs claimed in one transaction and held ready: keeps the lane busy across commits, and bounds what an urgent
    #: job waits for.
    claim_ahead: int = 8
    #: Nothing is claimed before this is set; None: at once. For work that must not begin before the store was compared.
    opens: asyncio.Event | None = None

    @property
    def model(self) -> ModelKey | None:
        """The model that all its steps are for, or None: then it takes no turns."""
        targets = {target for _, target in self.steps}
        return ModelKey(target) if len(targets) == 1 and (target := targets.pop()) else None


@dataclass(slots=True)
class _LaneState:
    lane: Lane
    claimed: deque[Job] = field(default_factory=deque)
    running: dict[asyncio.Task[None], Sequence[Job]] = field(default_factory=dict)


class Dispatcher:
    """Owns the claiming tasks of all lanes and every job that is claimed and not yet ended."""

    def __init__(self, queue: JobQueue, lanes: Sequence[Lane], *, turns: ModelTurns | None = None) -> None:
        self._queue = queue
        self._turns = turns
        self._states = [_LaneState(lane) for lane in lanes]
        self._is_draining = asyncio.Event()

    @property
    def jobs_in_hand(self) -> dict[str, int]:
        """Claimed jobs per lane."""
        return {
            state.lane.name: len(state.claimed) + sum(len(jobs) for jobs in state.running.values())
            for state in self._states
        }

    async def run(self) -> None:
        """Serve all lanes until cancelled; `drain` comes after it. Raises what a run function raises: that is a bug."""
        async with asyncio.TaskGroup() as group:
            for state in self._states:
                group.create_task(self._serve(state), name=f"lane:{state.lane.name}")

    async def drain(self, *, deadline_s: float) -> None:
        """Claim nothing more, wait for what runs, give back the rest when the time is over. `run` may be called again."""
        self._is_draining.set()
        self._queue.notify()
        running = {task: jobs for state in self._states for task, jobs in state.running.items()}
        if running:
            await asyncio.wait(running, timeout=deadline_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # What was cut off is given back too, its attempt not counted: a long scan that meets five restarts has not
        # killed anything. Jobs that did end are not theirs any more, and giving those back changes nothing.
        left = [job for jobs in running.values() for job in jobs]
        for state in self._states:
            left += state.claimed
            state.claimed.clear()
            state.running.clear()
        with contextlib.suppress(errors.RetryLater):  # not written: the next start gives them back
            for job in left:
                await self._queue.release(job)
        self._is_draining.clear()

    async def _serve(self, state: _LaneState) -> None:
        if state.lane.opens is not None:
            await state.lane.opens.wait()
        # What runs when this ends is drain's to wait for.
        while not self._is_draining.is_set():
            seen = self._queue.changes_seen()
            try:
                if await self._may_claim(state):
                    await self._claim_more(state)
            except errors.RetryLater as trouble:  # the disk is full, the database locked: nothing else can be done
                log.warning("nothing can be claimed, waiting", lane=state.lane.name, reason=trouble.sentence())
                await asyncio.sleep(trouble.after_s)
                continue
            self._start_runs(state)
            await self._wait_for_work_or_room(state, seen)

    async def _may_claim(self, state: _LaneState) -> bool:
        """True in the lane's turn. Out of turn and with nothing in hand it waits for a job, then for its turn."""
        model = state.lane.model
        if self._turns is None or model is None or self._turns.may_claim(model):
            return True
        if state.running or state.claimed:
            return False
        self._turns.note_busy(model, is_busy=False)
        await self._queue.wait_ready(state.lane.steps)
        await self._turns.wait_turn(model)
        return True

    async def _claim_more(self, state: _LaneState) -> None:
        lane = state.lane
        free = lane.concurrency - len(state.running)
        want = max(lane.claim_ahead, free * lane.group) - len(state.claimed)
        if free > 0 and len(state.claimed) < free * lane.group and want > 0:
            self._note_busy(state, is_busy=True)  # before the wait: nobody takes the turn of one who claims
            try:
                state.claimed.extend(await self._queue.claim(steps=lane.steps, limit=want, owner=lane.name))
            finally:  # idle is who finds nothing: between two jobs a model keeps its turn
                self._note_busy(state, is_busy=bool(state.claimed or state.running))

    def _note_busy(self, state: _LaneState, *, is_busy: bool) -> None:
        if self._turns is not None and state.lane.model is not None:
            self._turns.note_busy(state.lane.model, is_busy=is_busy)

    def _start_runs(self, state: _LaneState) -> None:
        lane = state.lane
        while state.claimed and len(state.running) < lane.concurrency:
            jobs = [state.claimed.popleft() for _ in range(min(lane.group, len(state.claimed)))]
            task = asyncio.create_task(_run_all(lane, jobs), name=f"{lane.name}:{jobs[0].id}")
            state.running[task] = jobs

    async def _wait_for_work_or_room(self, state: _LaneState, seen: int) -> None:
        """Return when a run has ended or, with room left, when something may be claimable."""
        waiting: set[asyncio.Task[None]] = set(state.running)
        change: asyncio.Task[None] | None = None
        if len(state.running) < state.lane.concurrency and not state.claimed:
            change = asyncio.create_task(self._queue.wait_change(seen), name=f"{state.lane.name}:waiting")
            waiting.add(change)
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if change is not None and not change.done():
                change.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await change
        for task in ended:
            if state.running.pop(task, None) is not None:
                task.result()  # a bug in a run function ends the lane, and with it the service


async def _run_all(lane: Lane, jobs: Sequence[Job]) -> None:
    await lane.run(jobs)
