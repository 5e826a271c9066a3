"""The queue on a real database file."""

from __future__ import annotations

import asyncio
import re
import sqlite3

import pytest

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import JobState, Outcome, Owed, Priority, Step
from msearchd.jobs.moves import SQL
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

EXTRACT = [(Step.EXTRACT, None)]
A, B, C = AssetId(1), AssetId(2), AssetId(3)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "msearchd.db")
    yield database
    await database.close()


@pytest.fixture
async def queue(database, clock):
    queue = JobQueue(
        database, QueueSettings(max_attempts=3, retry_base_s=1, retry_cap_s=60, history_rows=50), now_ms=clock
    )
    await queue.open()
    yield queue
    await queue.close()


async def claim(queue, steps=EXTRACT, limit=8):
    return await queue.claim(steps=steps, limit=limit, owner="test")


async def test_the_check_of_the_table_is_the_enum_of_states(database, queue):
    sql = await database.read(lambda c: c.execute("SELECT sql FROM sqlite_master WHERE name='job'").fetchone()[0])
    inside = re.search(r"state IN \(([^)]*)\)", sql)[1]
    assert set(re.findall(r"'(\w+)'", inside)) == {state.value for state in JobState}


async def test_the_check_of_the_history_is_the_enum_of_outcomes(database, queue):
    sql = await database.read(
        lambda c: c.execute("SELECT sql FROM sqlite_master WHERE name='job_history'").fetchone()[0]
    )
    inside = re.search(r"outcome IN \(([^)]*)\)", sql)[1]
    assert set(re.findall(r"'(\w+)'", inside)) == {outcome.value for outcome in Outcome}


async def test_owing_a_step_twice_is_owing_it_once_at_the_better_priority(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT, priority=Priority.BACKFILL)])
    await queue.enqueue(
        [Owed(A, Step.EXTRACT, priority=Priority.LIVE), Owed(A, Step.EXTRACT, priority=Priority.NORMAL)]
    )
    (job,) = await claim(queue)
    assert job.priority is Priority.LIVE
    assert await queue.complete(job) is Outcome.DONE
    assert (await queue.counts()).open == 0


async def test_the_better_priority_goes_first_then_the_older(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT, priority=Priority.BACKFILL), Owed(B, Step.EXTRACT)])
    await queue.enqueue([Owed(C, Step.EXTRACT)])
    assert [job.asset for job in await claim(queue, limit=2)] == [B, C]


async def test_the_back_fill_gets_an_eighth_under_endless_live_work(queue):
    await queue.enqueue([Owed(AssetId(n), Step.EXTRACT, priority=Priority.LIVE) for n in range(500)])
    await queue.enqueue([Owed(AssetId(1000 + n), Step.EXTRACT, priority=Priority.BACKFILL) for n in range(500)])
    taken = []
    for _ in range(160):
        for job in await claim(queue, limit=1):
            taken.append(job.priority)
            await queue.complete(job)
    assert taken.count(Priority.BACKFILL) == 20


@pytest.mark.parametrize("priority", [Priority.LIVE, Priority.NORMAL, Priority.BACKFILL])
async def test_nothing_starves_under_endless_interactive_work(queue, priority):
    await queue.enqueue([Owed(A, Step.EXTRACT, priority=priority)])
    for number in range(17):  # there is always somebody who waits for something better
        await queue.enqueue([Owed(AssetId(1000 + number), Step.EXTRACT, priority=Priority.INTERACTIVE)])
        (job,) = await claim(queue, limit=1)
        await queue.complete(job)
        if job.asset == A:
            return
    pytest.fail("not claimed within one round")


async def test_a_file_that_kills_its_process_keeps_nobody_else_from_work(tmp_path, clock):
    """Poison: each life claims both, the first file kills it; the second is done in spite of it."""
    done = []
    for _ in range(6):
        database = await Database.open(tmp_path / "poison.db")
        queue = JobQueue(database, QueueSettings(max_attempts=3), now_ms=clock)
        killed = await queue.open()
        if not done:
            await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.EXTRACT)])
            done.append(None)
        jobs = await claim(queue, limit=1)
        if not jobs:
            break
        if jobs[0].asset == B:
            await queue.complete(jobs[0])
            done.append(B)
        await queue.close()  # with A in work: as if the process had died
        await database.close()
    assert done == [None, B]
    assert [(asset, step) for asset, step, _ in killed] in ([(A, Step.EXTRACT)], [])
    (failed,) = await queue.failures()
    assert (failed.asset, failed.attempts) == (A, 3)
    assert "killed its worker" in failed.error
    await queue.close()
    await database.close()


async def test_a_change_during_work_runs_exactly_once_more(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    assert await claim(queue) == []
    assert await queue.complete(job) is Outcome.SUPERSEDED
    (again,) = await claim(queue)
    assert again.attempts == 1
    assert await queue.complete(again) is Outcome.DONE


async def test_two_steps_of_one_asset_never_run_at_once(queue):
    both = [(Step.EXTRACT, None), (Step.EMBED, None)]
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(A, Step.EMBED, "m1"), Owed(A, Step.EMBED, "m2")])
    seen = []
    while jobs := await claim(queue, both):
        assert len(jobs) == 1
        assert await claim(queue, both) == []
        seen.append((jobs[0].step, jobs[0].target))
        await queue.complete(jobs[0])
    assert seen == [(Step.EXTRACT, ""), (Step.EMBED, "m1"), (Step.EMBED, "m2")]


async def test_the_table_itself_refuses_two_running_jobs_of_one_asset(database, queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(A, Step.OCR)])
    force = "UPDATE job SET state='running', claimed_generation=1"
    with pytest.raises(Exception, match="UNIQUE"):
        await database.write(lambda c: c.execute(force).rowcount)


async def test_a_claim_takes_only_its_steps_and_targets(queue):
    await queue.enqueue([Owed(A, Step.EMBED, "m1"), Owed(B, Step.EMBED, "m2"), Owed(C, Step.OCR)])
    assert [job.asset for job in await claim(queue, [(Step.EMBED, "m2")])] == [B]
    assert [job.asset for job in await claim(queue, [(Step.EMBED, None), (Step.OCR, None)])] == [A, C]


async def test_a_dropped_job_in_work_ends_quietly_and_a_new_change_waits_for_its_end(database, queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await database.write(lambda c: queue.drop_in(c, A))
    assert await database.read(lambda c: queue.open_states_in(c, A)) == {}
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    assert await claim(queue) == []
    assert await queue.fail(job, "too late") is Outcome.SUPERSEDED
    (again,) = await claim(queue)
    assert await queue.complete(again) is Outcome.DONE


async def test_a_file_that_fails_each_time_ends_in_failed_with_its_error(queue, clock):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    for attempt in (1, 2, 3):
        clock.now += 1_000_000
        queue.notify()
        await asyncio.wait_for(queue.wait_ready(EXTRACT), 5)
        (job,) = await claim(queue)
        assert job.attempts == attempt
        outcome = await queue.retry(job, "no text in it")
    assert outcome is Outcome.FAILED
    (row,) = await queue.failures(limit=10)
    assert (row.asset, row.error, row.attempts) == (A, "no text in it", 3)
    assert await queue.retry_failed(A) == 1
    (job,) = await claim(queue)
    assert job.attempts == 1


async def test_an_outage_of_any_length_only_delays(queue, clock):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    for _ in range(20):
        (job,) = await claim(queue)
        assert job.attempts == 1
        assert await queue.retry(job, "the store is down", after_s=1) is Outcome.RETRIED
        clock.now += 200_000
        queue.notify()
        await asyncio.wait_for(queue.wait_ready(EXTRACT), 5)


async def test_a_delayed_job_is_promoted_by_the_timer_alone(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.retry(job, "later", after_s=0.1)
    assert (await queue.counts()).delayed == 1
    await asyncio.wait_for(queue.wait_ready(EXTRACT), 5)  # the wall clock of this test stands still
    assert (await queue.counts()).ready == 1


async def test_a_clock_set_back_by_a_week_delays_nothing_for_a_week(queue, clock):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.retry(job, "later", after_s=30)
    clock.now -= 7 * 86_400_000
    await queue._promote_all(clock.now)
    assert (await queue.counts()).ready == 1


async def test_a_nearer_job_resets_the_timer(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.EXTRACT)])
    far, near = await claim(queue)
    await queue.retry(far, "later", after_s=50)
    await queue.retry(near, "soon", after_s=0.05)
    await asyncio.wait_for(queue.wait_ready(EXTRACT), 5)
    assert [job.asset for job in await claim(queue)] == [B]


async def test_blocked_jobs_wake_by_their_cause_and_no_other(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.EXTRACT)])
    first, second = await claim(queue)
    await queue.block(first, cause="model:x", reason="no weights")
    await queue.block(second, cause="store", reason="down")
    assert [(row.cause, row.reason, row.jobs) for row in await queue.blocked_reasons()] == [
        ("model:x", "no weights", 1),
        ("store", "down", 1),
    ]
    assert await queue.wake("model:x") == 1
    assert await queue.wake("nobody") == 0
    assert [job.asset for job in await claim(queue)] == [A]


async def test_a_job_that_blocks_on_a_cause_that_was_woken_meanwhile_is_ready(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.wake("model:x")
    await queue.block(job, cause="model:x", reason="no weights (a moment ago)")
    (job,) = await claim(queue)
    await queue.block(job, cause="model:x", reason="no weights")  # it looked again: now it is believed
    assert (await queue.counts()).blocked == 1


async def test_more_blocked_jobs_than_one_group_all_wake(queue, monkeypatch):
    monkeypatch.setattr("msearchd.jobs.queue._GROUP", 3)
    await queue.enqueue([Owed(AssetId(n), Step.EXTRACT) for n in range(10)])
    for job in await claim(queue, limit=10):
        await queue.block(job, cause="x", reason="y")
    assert await queue.wake("x") == 10


async def test_a_pause_lets_only_interactive_work_through_and_survives_a_restart(database, queue, clock):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.EXTRACT, priority=Priority.INTERACTIVE)])
    await queue.pause("user")
    await queue.pause("disk is nearly full")
    assert [job.asset for job in await claim(queue)] == [B]
    again = JobQueue(database, QueueSettings(), now_ms=clock)
    await again.open()
    assert await again.pauses() == ("disk is nearly full", "user")
    await again.resume("user")
    assert [job.asset for job in await claim(again)] == [B]  # given back by the restart
    await again.resume(None)
    assert [job.asset for job in await claim(again)] == [A]
    await again.close()


async def test_a_file_that_kills_its_process_ends_in_failed(tmp_path, clock):
    settings = QueueSettings(max_attempts=2)
    killed = []
    for life in range(4):
        database = await Database.open(tmp_path / "db")
        queue = JobQueue(database, settings, now_ms=clock)
        killed += await queue.open()
        if life == 0:
            await queue.enqueue([Owed(A, Step.EXTRACT)])
        await claim(queue)
        await queue.close()
        await database.close()  # as a kill: the claim stands
    assert killed == [(A, Step.EXTRACT, "")]


async def test_a_cancelled_claim_leaves_nothing_claimed(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    waiting = asyncio.create_task(claim(queue))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    seen = queue.changes_seen()
    while not (jobs := await claim(queue)):
        await asyncio.wait_for(queue.wait_change(seen), 5)
    assert jobs[0].attempts == 1


async def test_a_released_job_is_as_if_it_had_not_been_claimed(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.release(job)
    (again,) = await claim(queue)
    assert again.attempts == 1
    assert await queue.complete(job) is Outcome.SUPERSEDED  # the first claim's end comes late: it changes nothing
    assert await queue.complete(again) is Outcome.DONE


async def test_wait_ready_sleeps_until_there_is_work_for_its_steps(queue):
    waiting = asyncio.create_task(queue.wait_ready(EXTRACT))
    await queue.enqueue([Owed(A, Step.OCR)])
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    await queue.enqueue([Owed(B, Step.EXTRACT)])
    await asyncio.wait_for(waiting, 5)


async def test_idle_for_waits_for_its_assets_alone(queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.OCR)])
    assert not await queue.idle_for([A, C], deadline_s=0.05)
    waiting = asyncio.create_task(queue.idle_for([A, C], deadline_s=5))
    (job,) = await claim(queue)
    await queue.complete(job)
    assert await waiting
    assert not await queue.idle_for(None, deadline_s=0.05)
    (job,) = await claim(queue, [(Step.OCR, None)])
    await queue.complete(job)
    assert await queue.idle_for(None, deadline_s=0)


async def test_the_history_tells_how_attempts_ended_and_stays_short(queue, monkeypatch):
    monkeypatch.setattr("msearchd.jobs.moves._TRIM_EVERY", 8)
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    (job,) = await claim(queue)
    await queue.fail(job, "broken")
    await queue.retry_failed()
    (job,) = await claim(queue)
    await queue.complete(job)
    assert [(row.outcome, row.error) for row in await queue.history_of(A)] == [
        (Outcome.DONE, ""),
        (Outcome.FAILED, "broken"),
    ]
    await queue.enqueue([Owed(AssetId(n), Step.EXTRACT) for n in range(200)])
    while jobs := await claim(queue, limit=50):
        for job in jobs:
            await queue.complete(job)
    rows = await queue._database.read(lambda c: c.execute("SELECT count(*) FROM job_history").fetchone()[0])
    assert 50 <= rows < 58


async def test_the_best_reason_for_a_file_that_is_not_done_is_its_failure(database, queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(A, Step.OCR)])
    (job,) = await claim(queue)
    await queue.block(job, cause="x", reason="no model")
    (job,) = await claim(queue, [(Step.OCR, None)])
    await queue.fail(job, "unreadable")
    assert await database.read(lambda c: queue.open_reason_in(c, A)) == "unreadable"
    assert await database.read(lambda c: queue.open_states_in(c, A)) == {JobState.BLOCKED: 1, JobState.FAILED: 1}


async def test_a_reset_forgets_everything_but_the_pauses(database, queue):
    await queue.enqueue([Owed(A, Step.EXTRACT), Owed(B, Step.EXTRACT)])
    await queue.pause("user")
    await queue.resume("user")
    (job, _) = await claim(queue)
    await queue.pause("user")
    await database.write(queue.clear_in)
    assert await queue.complete(job) is Outcome.SUPERSEDED
    assert await queue.jobs_of(A) == []
    assert await queue.pauses() == ("user",)


async def test_counts_say_how_many_by_state_and_step_and_since_when(queue, clock):
    await queue.enqueue([Owed(A, Step.EXTRACT)])
    clock.now += 5000
    await queue.enqueue([Owed(B, Step.EXTRACT), Owed(C, Step.OCR)])
    counts = await queue.counts()
    assert (counts.ready, counts.by_step) == (3, {"extract": 2, "ocr": 1})
    assert counts.oldest_ready_ms == clock.now - 5000


@pytest.mark.parametrize("name", sorted(SQL))
async def test_no_query_but_those_of_resets_and_starts_reads_the_whole_job_table(database, queue, name):
    def plan(c: sqlite3.Connection) -> list[str]:
        numbered = len(set(re.findall(r"\?(\d+)", SQL[name])))
        arguments = [1] * numbered if numbered else dict.fromkeys(re.findall(r":(\w+)", SQL[name]), "[]")
        return [row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", arguments)]

    steps = await database.read(plan)
    if name not in {"forget_all_waiting", "clear", "forget_targets", "count_by_step"}:
        assert not [step for step in steps if re.fullmatch(r"SCAN job", step)], steps
