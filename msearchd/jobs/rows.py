"""What the queue tells about itself, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msearchd.domain.asset import AssetId
from msearchd.domain.job import JobId, JobState, Outcome, Priority, Step


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands. Times are UTC milliseconds; `error` is the last error, or the reason of a block."""

    id: JobId
    asset: AssetId
    step: Step
    target: str
    priority: Priority
    state: JobState
    attempts: int
    error: str
    cause: str
    run_at_ms: int | None
    created_ms: int
    updated_ms: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> JobRow:
        """From the columns that queries.sql names in this order."""
        number, asset, step, target, priority, state, attempts, error, cause, run_at_ms, created_ms, updated_ms = row
        return cls(
            JobId(number),
            AssetId(asset),
            Step(step),
            target,
            Priority(priority),
            JobState(state),
            attempts,
            error,
            cause or "",
            run_at_ms,
            created_ms,
            updated_ms,
        )


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """How one attempt ended."""

    asset: AssetId
    step: Step
    target: str
    outcome: Outcome
    attempts: int
    error: str
    ended_ms: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> HistoryRow:
        """From the columns that queries.sql names in this order."""
        asset, step, target, outcome, attempts, error, ended_ms = row
        return cls(AssetId(asset), Step(step), target, Outcome(outcome), attempts, error, ended_ms)


@dataclass(frozen=True, slots=True)
class BlockedReason:
    """A cause that jobs wait for, the reason that the first of them gives, how many they are, since when it waits."""

    cause: str
    reason: str
    jobs: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Jobs by state; `by_step` are the ready ones by step, `by_kind` by step and target; `oldest_ready_ms` is when the
    first in line was enqueued.
    """

    ready: int = 0
    running: int = 0
    delayed: int = 0
    blocked: int = 0
    failed: int = 0
    oldest_ready_ms: int | None = None
    by_step: Mapping[str, int] = field(default_factory=dict)
    by_kind: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """All jobs that are not done."""
        return self.ready + self.running + self.delayed + self.blocked + self.failed
