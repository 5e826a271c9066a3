"""When a job is tried again. Pure: in a job, its error and `now`; out when, or that it failed. Never touches the queue.

Two kinds of failed attempt are told apart. An *error* is put down to the file: it counts, and after `max_attempts` the
job has failed. An *outage* (the store is down, a worker restarts, the disk is full) is nobody's fault: it only delays,
however long it lasts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from msearchd.aio import backoff
from msearchd.domain.job import Job
from msearchd.settings.model import QueueSettings


@dataclass(frozen=True, slots=True)
class Delayed:
    """Try again, not before `run_at_ms` (UTC)."""

    run_at_ms: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Its attempts are used up; `reason` is the last error."""

    reason: str


def next_attempt(
    job: Job, error: str, *, settings: QueueSettings, now_ms: int, spread: random.Random | None = None
) -> Delayed | Failed:
    """Say what follows attempt number `job.attempts` that ended in *error*: a wait that doubles, or the end."""
    if job.attempts >= settings.max_attempts:
        return Failed(error)
    wait_s = backoff.delay_s(job.attempts, base_s=settings.retry_base_s, cap_s=settings.retry_cap_s, spread=spread)
    return Delayed(now_ms + round(wait_s * 1000))


def after_outage(
    outages: int, *, after_s: float, settings: QueueSettings, now_ms: int, spread: random.Random | None = None
) -> Delayed:
    """Say when to come back from outage number *outages* in a row (from 1); *after_s* is what the failing part asks.

    The first wait is what was asked for; from the second on it doubles as well, so that a long outage costs little.
    Never longer than 1.5 times the cap.
    """
    wait_s = min(max(after_s, 0.0), settings.retry_cap_s)
    if outages > 1:
        grown_s = backoff.delay_s(outages - 1, base_s=settings.retry_base_s, cap_s=settings.retry_cap_s, spread=spread)
        wait_s = max(wait_s, grown_s)
    return Delayed(now_ms + round(wait_s * 1000))


def horizon_ms(settings: QueueSettings, now_ms: int) -> int:
    """Time beyond which no job can be delayed: one that is was written under a clock that has been set back since."""
    return now_ms + round(2000 * settings.retry_cap_s)
