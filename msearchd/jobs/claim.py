"""Take ready jobs. Synchronous, on the write connection; one indexed UPDATE per kind of place.

In: the steps that a lane serves, how many, which priorities may be claimed. Out: jobs, now running.
Never reads the line: every (step, target) is one short range of the ready index, delayed jobs are not in it.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from msearchd.aio.sqlite import named_queries
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, JobId, Priority, Step

#: A step and its target; None stands for every target of the step.
Wanted = tuple[Step, str | None]

_SQL: Final = named_queries("msearchd.jobs.sql")

# One range of the ready index. Within one (step, target) an asset has at most one row, and no more rows are skipped
# than assets are in work.
_RANGE: Final = """
SELECT * FROM (
  SELECT id, asset, priority FROM job AS j INDEXED BY job_ready
  WHERE state = 'ready' AND step = ?{step} AND target = ?{target} AND priority BETWEEN ?1 AND ?2
    AND NOT EXISTS (SELECT 1 FROM job AS r INDEXED BY job_running WHERE r.state = 'running' AND r.asset = j.asset)
  ORDER BY priority, id LIMIT ?3)
"""
_ALONE: Final = "SELECT id FROM ({range})"
# 2^40 jobs before two priorities overlap.
_CLAIM: Final = """
UPDATE job SET state = 'running', generation = generation + 1, claimed_generation = generation + 1, claim_serial = ?4,
  owner = ?5, attempts = attempts + 1, updated_ms = ?6
WHERE id IN ({chosen})
RETURNING id, asset, step, target, priority, generation, attempts
"""
_MERGED: Final = """
  SELECT id FROM (SELECT id, min(priority * 1099511627776 + id) AS place FROM ({ranges}) GROUP BY asset)
  ORDER BY place LIMIT ?3
"""


@functools.cache
def _statement(pairs: int) -> str:
    ranges = [_RANGE.format(step=7 + 2 * n, target=8 + 2 * n) for n in range(pairs)]
    chosen = _ALONE.format(range=ranges[0]) if pairs == 1 else _MERGED.format(ranges=" UNION ALL ".join(ranges))
    return _CLAIM.format(chosen=chosen)


def claim_in(
    c: sqlite3.Connection,
    *,
    steps: Sequence[Wanted],
    limit: int,
    kept: Mapping[Priority, int],
    owner: str,
    serial: int,
    now_ms: int,
) -> list[Job]:
    """Claim up to *limit* jobs: first the *kept* places, then by priority and age; while paused interactive ones alone.

    No asset is in two of them, nor in one that runs already.
    """
    pairs = _pairs(c, steps)
    if not pairs or limit <= 0:
        return []
    names = [name for pair in pairs for name in pair]

    def take(count: int, best: Priority, worst: Priority) -> list[Job]:
        arguments = [int(best), int(worst), count, serial, owner, now_ms, *names]
        return [_job(row) for row in c.execute(_statement(len(pairs)), arguments).fetchall()]

    if c.execute(_SQL["is_paused"]).fetchone():
        jobs = take(limit, Priority.INTERACTIVE, Priority.INTERACTIVE)
    else:
        jobs = [
            job
            for priority, places in kept.items()
            if any(c.execute(_SQL["has_ready"], (*pair, int(priority))).fetchone() for pair in pairs)
            for job in take(places, priority, priority)
        ]
        if len(jobs) < limit:
            jobs += take(limit - len(jobs), Priority.INTERACTIVE, Priority.BACKFILL)
    jobs.sort(key=lambda job: (job.priority, job.id))
    return jobs


def is_claimable_in(c: sqlite3.Connection, *, steps: Sequence[Wanted]) -> bool:
    """True if a claim for *steps* would find a job now. Changes nothing."""
    pairs = _pairs(c, steps)
    if not pairs:
        return False
    worst = Priority.INTERACTIVE if c.execute(_SQL["is_paused"]).fetchone() else Priority.BACKFILL
    ranges = " UNION ALL ".join(_RANGE.format(step=4 + 2 * n, target=5 + 2 * n) for n in range(len(pairs)))
    arguments = [int(Priority.INTERACTIVE), int(worst), 1, *(name for pair in pairs for name in pair)]
    return c.execute(f"SELECT 1 FROM ({ranges}) LIMIT 1", arguments).fetchone() is not None  # noqa: S608 - no values in it


def _pairs(c: sqlite3.Connection, steps: Sequence[Wanted]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for step, target in steps:
        if target is not None:
            pairs.append((step.value, target))
        else:
            pairs += [(step.value, found) for found in _targets(c, step)]
    return list(dict.fromkeys(pairs))


def _targets(c: sqlite3.Connection, step: Step) -> list[str]:
    first, last = c.execute(_SQL["target_ends"], (step.value,)).fetchone()
    if first == last:  # most often: one model, or a step without targets
        return [] if first is None else [first]
    return [row[0] for row in c.execute(_SQL["targets"], {"step": step.value})]


# Lookups in a dict: an enum's own costs a tenth of a claim.
_STEPS: Final = {step.value: step for step in Step}
_PRIORITIES: Final = {priority.value: priority for priority in Priority}


def _job(row: tuple[int, int, str, str, int, int, int]) -> Job:
    number, asset, step, target, priority, generation, attempts = row
    return Job(JobId(number), AssetId(asset), _STEPS[step], target, _PRIORITIES[priority], generation, attempts)
