"""What `msearch queue` shows: how many jobs of which step stand where, since when, why not, and how fast it goes.

In: a reading connection and `now`. Out: one frozen Overview, all of it in one snapshot. Changes nothing. Counting reads
every row that waits (0.3 s a million); it is asked for by hand, never by a poll.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msearchd.domain.job import JobState, Outcome
from msearchd.jobs.moves import SQL

#: Reasons are counted over the newest rows of a state only, so that a million failures cost no more than these.
REASONS_READ: Final = 20_000
_RATE_OVER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step (of one target) by state. `oldest_ms`: when the oldest of them was enqueued, UTC."""

    step: str
    target: str
    jobs: dict[JobState, int]
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why so many jobs of a state do not go on; `since_ms` is when the first of those counted came to it."""

    state: JobState
    step: str
    reason: str
    jobs: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The queue in numbers. `jobs_per_s`: attempts that ended well over the last minute, as far as history reaches."""

    steps: tuple[StepLine, ...]
    reasons: tuple[Reason, ...]
    pauses: tuple[str, ...]
    jobs_per_s: float
    ended: dict[Outcome, int]
    #: When the next delayed job is due, UTC ms; None if none waits for a time.
    next_due_ms: int | None

    def total(self, *states: JobState) -> int:
        """Jobs in *states*."""
        return sum(line.jobs.get(state, 0) for line in self.steps for state in states)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest open job was enqueued."""
        return min((line.oldest_ms for line in self.steps), default=None)


def overview_in(c: sqlite3.Connection, *, now_ms: int, reasons: int) -> Overview:
    """Read it; at most *reasons* reasons for each of blocked, failed and delayed, the most frequent first."""
    ended = _ended(c.execute(SQL["ended_since"], {"since": now_ms - _RATE_OVER_MS}))
    since_ms = min((first for _, _, first in ended), default=now_ms)
    span_s = max(1.0, (now_ms - since_ms) / 1000)
    outcomes = {outcome: count for outcome, count, _ in ended}
    return Overview(
        steps=_steps(c.execute(SQL["count_by_step"])),
        reasons=tuple(
            Reason(state, *row)
            for state in (JobState.FAILED, JobState.BLOCKED, JobState.DELAYED)
            for row in c.execute(SQL[f"reasons_{state.value}"], {"rows": REASONS_READ, "limit": reasons})
        ),
        pauses=tuple(row[0] for row in c.execute(SQL["pauses"])),
        jobs_per_s=outcomes.get(Outcome.DONE, 0) / span_s,
        ended=outcomes,
        next_due_ms=c.execute(SQL["next_due"]).fetchone()[0],
    )


def _ended(rows: Iterable[tuple[str, int, int]]) -> list[tuple[Outcome, int, int]]:
    return [(Outcome(outcome), count, first) for outcome, count, first in rows]


def _steps(rows: Iterable[tuple[str, str, str, int, int]]) -> tuple[StepLine, ...]:
    jobs: defaultdict[tuple[str, str], dict[JobState, int]] = defaultdict(dict)
    oldest: dict[tuple[str, str], int] = {}
    for state, step, target, count, first_ms in rows:
        place = (step, target)
        jobs[place][JobState(state)] = count
        oldest[place] = min(first_ms, oldest.get(place, first_ms))
    return tuple(StepLine(step, target, jobs[step, target], oldest[step, target]) for step, target in sorted(jobs))
