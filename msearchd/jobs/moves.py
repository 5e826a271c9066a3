"""Every move of a job, as synchronous functions of the write connection, to be composed with other stages' writes.

In: a connection inside a transaction, and values. Out: rows moved. Never commits, never waits, never wakes anybody:
who composes them calls `JobQueue.notify()` after the commit.
All of them may be run twice where the first run was rolled back; none keeps a truth outside of the tables.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msearchd.aio.sqlite import named_queries
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, JobState, Outcome, Owed, Step
from msearchd.jobs import many, retry
from msearchd.settings.model import QueueSettings

SQL: Final = named_queries("msearchd.jobs.sql")

#: History is shortened once in so many rows, so that it costs nothing and stands at most this much above its cap.
_TRIM_EVERY: Final = 512


# Read from the enums once: an enum's own `.value` costs a tenth of an enqueue.
_STEP_NAMES: Final = {step: step.value for step in Step}
_DONE: Final = Outcome.DONE.value


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The row of a running attempt, as it is when the attempt ends."""

    generation: int
    is_dropped: bool
    attempts: int
    outages: int
    claim_serial: int


class JobMoves:
    """The synchronous half of the queue."""

    def __init__(self, settings: QueueSettings, *, now_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._now_ms = now_ms
        # Order of claims and wakes: a job that was claimed before its cause went must not fall asleep on it after.
        self._serials = itertools.count(1)
        self._woken: dict[str, int] = {}
        #: A hint for the timer, possibly too early (a rolled back move), never too late.
        self._next_due_ms: int | None = None

    # -- owing and forgetting ------------------------------------------------------------------------------------------

    def enqueue_in(self, c: sqlite3.Connection, owed: Iterable[Owed]) -> None:
        """Owe steps. What waits, is delayed, blocked or failed is ready again; what runs will run once more."""
        now = self._now_ms()
        rows = [(item.asset, _STEP_NAMES[item.step], item.target, int(item.priority)) for item in owed]
        many.enqueue(c, rows, now_ms=now)

    def drop_in(self, c: sqlite3.Connection, asset: AssetId, *, keep: Collection[Step] = ()) -> None:
        """Forget what is owed for *asset*, but for *keep*. What runs is forgotten at its end, whatever that is."""
        arguments = {"asset": asset, "keep": json.dumps([step.value for step in keep]), "now": self._now_ms()}
        c.execute(SQL["forget_waiting"], arguments)
        c.execute(SQL["forget_running"], arguments)

    def drop_targets_in(self, c: sqlite3.Connection, step: Step, *, keep: Collection[str], limit: int) -> list[AssetId]:
        """Forget at most *limit* jobs of *step* for other targets than *keep* that are not in work; say whose they were."""
        arguments = {"step": step.value, "keep": json.dumps(list(keep)), "limit": limit}
        return [AssetId(row[0]) for row in c.execute(SQL["forget_targets"], arguments).fetchall()]

    def clear_in(self, c: sqlite3.Connection) -> None:
        """Forget everything that is owed, and the history (a reset). Pauses stay; what runs is forgotten at its end."""
        c.execute(SQL["forget_all_waiting"])
        c.execute(SQL["forget_all_running"], {"now": self._now_ms()})
        c.execute(SQL["forget_history"])

    # -- ends of an attempt --------------------------------------------------------------------------------------------

    def complete_in(self, c: sqlite3.Connection, job: Job) -> Outcome:
        """The attempt did its work: DONE, and the row is gone.

        SUPERSEDED where the asset changed meanwhile (ready again), was forgotten (gone), or the job is no longer this
        attempt's; the caller's own writes of the same transaction are then about old bytes.
        """
        if c.execute(SQL["complete"], (job.id, job.generation)).rowcount:
            self._remember(c, job, _DONE)
            return Outcome.DONE
        self._end_if_superseded(c, job)
        return Outcome.SUPERSEDED

    def complete_all_in(self, c: sqlite3.Connection, jobs: Sequence[Job]) -> list[Outcome]:
        """As `complete_in` for each of *jobs*; of one that stands there twice the second is superseded."""
        now = self._now_ms()
        done = many.complete(c, [(job.id, job.generation) for job in jobs])
        outcomes: list[Outcome] = []
        rows: list[many.EndedRow] = []
        for job in jobs:
            if job.id in done:
                done.discard(job.id)
                rows.append((job.asset, _STEP_NAMES[job.step], job.target, _DONE, job.attempts, "", now))
                outcomes.append(Outcome.DONE)
            else:
                self._end_if_superseded(c, job)
                outcomes.append(Outcome.SUPERSEDED)
        kept = self._settings.history_rows
        if rows and kept and many.remember(c, rows) % _TRIM_EVERY < len(rows):
            c.execute(SQL["trim_history"], {"rows": kept})
        return outcomes

    def retry_in(self, c: sqlite3.Connection, job: Job, error: str, *, after_s: float | None = None) -> Outcome:
        """Delay the job, or fail it if its attempts are used up.

        With *after_s* it was an outage: the attempt does not count, and it waits at least so long, however often.
        """
        attempt = self._end_if_superseded(c, job)
        if attempt is None:
            return Outcome.SUPERSEDED
        now = self._now_ms()
        if after_s is None:
            following = retry.next_attempt(job, error, settings=self._settings, now_ms=now)
            attempts, outages = attempt.attempts, 0
        else:
            attempts, outages = max(0, attempt.attempts - 1), attempt.outages + 1
            following = retry.after_outage(outages, after_s=after_s, settings=self._settings, now_ms=now)
        if isinstance(following, retry.Failed):
            return self._fail(c, job, following.reason)
        c.execute(
            SQL["delay"],
            {
                "id": job.id,
                "run_at": following.run_at_ms,
                "attempts": attempts,
                "outages": outages,
                "error": error,
                "now": now,
            },
        )
        if self._next_due_ms is None or following.run_at_ms < self._next_due_ms:
            self._next_due_ms = following.run_at_ms
        self._remember(c, job, Outcome.RETRIED.value, error)
        return Outcome.RETRIED

    def fail_in(self, c: sqlite3.Connection, job: Job, error: str) -> Outcome:
        """Fail the job for good: until its asset changes or somebody asks again."""
        return Outcome.SUPERSEDED if self._end_if_superseded(c, job) is None else self._fail(c, job, error)

    def block_in(self, c: sqlite3.Connection, job: Job, *, cause: str, reason: str) -> Outcome:
        """Let the job wait until `wake(cause)`; the attempt does not count.

        If the cause was woken after the job was claimed, the job is ready at once: it saw the world before.
        """
        attempt = self._end_if_superseded(c, job)
        if attempt is None:
            return Outcome.SUPERSEDED
        arguments: dict[str, Any] = {"id": job.id, "attempts": max(0, attempt.attempts - 1), "now": self._now_ms()}
        if self._woken.get(cause, 0) > attempt.claim_serial:
            c.execute(SQL["ready_again"], arguments)
        else:
            c.execute(SQL["block"], {**arguments, "cause": cause, "error": reason})
        self._remember(c, job, Outcome.BLOCKED.value, reason)
        return Outcome.BLOCKED

    def release_in(self, c: sqlite3.Connection, job: Job) -> None:
        """Give the job back as if it had not been claimed."""
        attempt = self._end_if_superseded(c, job)
        if attempt is not None:
            c.execute(
                SQL["ready_again"], {"id": job.id, "attempts": max(0, attempt.attempts - 1), "now": self._now_ms()}
            )

    def _end_if_superseded(self, c: sqlite3.Connection, job: Job) -> _Attempt | None:
        """The attempt, if it is still this job's and about today's bytes; else end it as superseded and say None."""
        row = c.execute(SQL["claimed_row"], {"id": job.id, "generation": job.generation}).fetchone()
        if row is None:
            return None  # it was ended before, by this owner or by a restart: nothing to undo
        attempt = _Attempt(row[0], bool(row[1]), *row[2:])
        if attempt.is_dropped:
            c.execute(SQL["forget_one"], {"id": job.id})
        elif attempt.generation != job.generation:
            c.execute(SQL["ready_again"], {"id": job.id, "attempts": 0, "now": self._now_ms()})
        else:
            return attempt
        self._remember(c, job, Outcome.SUPERSEDED.value)
        return None

    def _fail(self, c: sqlite3.Connection, job: Job, error: str) -> Outcome:
        c.execute(SQL["fail"], {"id": job.id, "error": error, "now": self._now_ms()})
        self._remember(c, job, Outcome.FAILED.value, error)
        return Outcome.FAILED

    def _remember(self, c: sqlite3.Connection, job: Job, outcome: str, error: str = "") -> None:
        rows = self._settings.history_rows
        if not rows:
            return
        row = (job.asset, _STEP_NAMES[job.step], job.target, outcome, job.attempts, error, self._now_ms())
        cursor = c.execute(SQL["remember"], row)
        if cursor.lastrowid and cursor.lastrowid % _TRIM_EVERY == 0:
            c.execute(SQL["trim_history"], {"rows": rows})

    # -- the asset's view ----------------------------------------------------------------------------------------------

    def is_current_in(self, c: sqlite3.Connection, job: Job) -> bool:
        """True if the running attempt is about what is known now: its asset neither changed nor was forgotten since."""
        return c.execute(SQL["is_current"], (job.id, job.generation)).fetchone() is not None

    def open_states_in(self, c: sqlite3.Connection, asset: AssetId) -> dict[JobState, int]:
        """How many of the asset's jobs are in each state; empty if nothing is owed."""
        return {JobState(state): count for state, count in c.execute(SQL["open_states"], {"asset": asset})}

    def has_delayed_in(self, c: sqlite3.Connection) -> bool:
        """True if any job waits for its time."""
        return c.execute(SQL["next_due"]).fetchone()[0] is not None

    def open_jobs_in(self, c: sqlite3.Connection, asset: AssetId) -> list[tuple[Step, str, JobState]]:
        """(step, target, state) of what is owed for an asset."""
        rows = c.execute(SQL["open_jobs"], {"asset": asset})
        return [(Step(step), target, JobState(state)) for step, target, state in rows]

    def owed_assets_in(self, c: sqlite3.Connection, after: AssetId, *, limit: int) -> list[AssetId]:
        """Assets after *after* that something is owed for, in order, at most *limit*."""
        return [AssetId(row[0]) for row in c.execute(SQL["owed_assets"], {"after": after, "limit": limit})]

    def open_reason_in(self, c: sqlite3.Connection, asset: AssetId) -> str:
        """The error that best says why the asset is not done: of a failed job, else a blocked, else a delayed one."""
        row = c.execute(SQL["open_reason"], {"asset": asset}).fetchone()
        return row[0] if row else ""

    # -- start ---------------------------------------------------------------------------------------------------------

    def return_running_in(self, c: sqlite3.Connection) -> list[tuple[AssetId, Step, str]]:
        """At start: give back what a dead process had claimed; returns what failed because it used up its attempts.

        Attempts are counted at the claim, so that a file that kills its process ends in failed.
        """
        now = self._now_ms()
        c.execute(SQL["forgotten_at_start"])
        killed = c.execute(SQL["killed"], {"max_attempts": self._settings.max_attempts, "now": now}).fetchall()
        if self._settings.history_rows:
            failed = Outcome.FAILED.value
            c.executemany(SQL["remember"], [(*row[:3], failed, *row[3:], now) for row in killed])
        c.execute(SQL["return_running"], {"now": now})
        return [(AssetId(asset), Step(step), target) for asset, step, target, _, _ in killed]
