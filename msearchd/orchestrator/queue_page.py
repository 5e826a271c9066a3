"""The queue's overview in the words of the API. Pure: in an Overview and `now`, out a QueuePageReply."""

from __future__ import annotations

from typing import Literal, cast

from msearchd.control.replies import ProgressReply, QueueReply
from msearchd.control.upkeep_replies import QueuePageReply, ReasonReply, StepReply
from msearchd.domain.job import JobState
from msearchd.jobs.overview import Overview, StepLine

_READY = JobState.READY


def queue_page(overview: Overview, *, now_ms: int, progress: ProgressReply) -> QueuePageReply:
    """Ages are seconds before *now_ms*, never negative: a clock may have been set back."""
    return QueuePageReply(
        queue=QueueReply(
            **{state.value: overview.total(state) for state in JobState},
            oldest_ready_s=_age_s(
                min((s.oldest_ms for s in overview.steps if s.jobs.get(_READY)), default=None), now_ms
            ),
            by_step=_ready_by_step(overview.steps),
        ),
        steps=[_step(line, now_ms) for line in overview.steps],
        reasons=[
            ReasonReply(
                state=cast("Literal['failed', 'blocked', 'delayed']", why.state.value),
                step=why.step,
                reason=why.reason,
                jobs=why.jobs,
                since_ms=why.since_ms,
            )
            for why in overview.reasons
        ],
        pauses=list(overview.pauses),
        oldest_s=_age_s(overview.oldest_ms, now_ms),
        next_due_s=None if overview.next_due_ms is None else max(0.0, (overview.next_due_ms - now_ms) / 1000),
        jobs_per_s=round(overview.jobs_per_s, 3),
        ended={outcome.value: count for outcome, count in overview.ended.items()},
        eta_s=progress.eta_s,
        files=progress,
    )


def _step(line: StepLine, now_ms: int) -> StepReply:
    counts = {state.value: line.jobs.get(state, 0) for state in JobState}
    return StepReply(step=line.step, target=line.target, **counts, oldest_s=_age_s(line.oldest_ms, now_ms) or 0.0)


def _ready_by_step(steps: tuple[StepLine, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in steps:
        if ready := line.jobs.get(_READY, 0):
            found[line.step] = found.get(line.step, 0) + ready
    return found


def _age_s(since_ms: int | None, now_ms: int) -> float | None:
    return None if since_ms is None else max(0.0, round((now_ms - since_ms) / 1000, 1))
