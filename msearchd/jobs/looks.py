"""Looks at the queue: synchronous reads, on a reading connection, in one snapshot. Change nothing."""

from __future__ import annotations

import sqlite3
import time

from msearchd.domain.asset import AssetId
from msearchd.jobs.moves import SQL
from msearchd.jobs.rows import BlockedReason, QueueCounts


def is_idle_in(c: sqlite3.Connection, waiting: list[AssetId] | None) -> bool:
    """True if nothing (of the assets in *waiting*) is ready or in work; takes those that are idle out of *waiting*."""
    if waiting is None:
        return c.execute(SQL["is_busy"]).fetchone() is None
    # From the end, so that each asset is looked at once when idle: the next look begins at the one still busy.
    while waiting:
        if c.execute(SQL["is_asset_busy"], {"asset": waiting[-1]}).fetchone():
            return False
        waiting.pop()
    return True


def timed_counts_in(c: sqlite3.Connection) -> tuple[QueueCounts, float]:
    """Jobs by state, and the seconds that counting them took."""
    started = time.perf_counter()
    ready = c.execute(SQL["count_ready"]).fetchall()
    firsts = ",".join(str(first) for *_, first in ready)
    by_step: dict[str, int] = {}
    for step, _, count, _ in ready:
        by_step[step] = by_step.get(step, 0) + count
    counts = QueueCounts(
        ready=sum(by_step.values()),
        running=_count(c, "count_running"),
        delayed=_count(c, "count_delayed"),
        blocked=sum(count for _, count, _ in c.execute(SQL["count_blocked"])),
        failed=_count(c, "count_failed"),
        oldest_ready_ms=c.execute(SQL["oldest_of"], {"ids": f"[{firsts}]"}).fetchone()[0],
        by_step=by_step,
        by_kind={(step, target or ""): count for step, target, count, _ in ready},
    )
    return counts, time.perf_counter() - started


def _count(c: sqlite3.Connection, query: str) -> int:
    return int(c.execute(SQL[query]).fetchone()[0])


def blocked_reasons_in(c: sqlite3.Connection) -> list[BlockedReason]:
    """One row for each cause that jobs wait for."""
    found = []
    for cause, jobs, first in c.execute(SQL["count_blocked"]).fetchall():
        reason, since_ms = c.execute(SQL["error_of"], {"id": first}).fetchone()
        found.append(BlockedReason(cause, reason, jobs, since_ms))
    return found
