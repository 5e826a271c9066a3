"""The database never grows without bound: done work gives its space back, history is capped, the log is emptied."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Owed, Step
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

JOBS = 200_000
MB = 1 << 20


def clock() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
async def opened(tmp_path):
    """Opens tmp_path/db; what was opened is closed at the end, also of a test that fails (its threads outlive it)."""
    made: list[Database | JobQueue] = []

    async def open_both(*, is_durable: bool = False) -> tuple[Database, JobQueue]:
        database = await Database.open(tmp_path / "db", is_durable=is_durable)
        queue = JobQueue(database, QueueSettings(), now_ms=clock)
        made.extend((database, queue))
        await queue.open()
        return database, queue

    yield open_both
    for one in reversed(made):
        await one.close()


async def work_off(database: Database, queue: JobQueue) -> int:
    done = 0
    while jobs := await queue.claim(steps=[(Step.EXTRACT, None)], limit=1000, owner="w"):
        await database.write(lambda c, some=jobs: [queue.complete_in(c, job) for job in some])
        done += len(jobs)
    return done


async def owe(queue: JobQueue, first: int, count: int) -> None:
    for start in range(first, first + count, 5000):
        await queue.enqueue([Owed(AssetId(n), Step.EXTRACT) for n in range(start, min(first + count, start + 5000))])


@pytest.mark.timeout(120)
async def test_two_hundred_thousand_jobs_later_the_files_are_as_small_as_before(tmp_path, opened):
    path = tmp_path / "db"
    log = tmp_path / "db-wal"
    database, queue = await opened()
    await owe(queue, 1, JOBS)
    await database.checkpoint()
    full = path.stat().st_size
    assert full > 15 * MB  # they were all there
    assert await work_off(database, queue) == JOBS
    assert log.stat().st_size < 130 * MB
    freed = 0
    while pages := await database.shrink():
        freed += pages
    assert freed > 0
    await database.checkpoint()
    assert log.stat().st_size == 0
    assert path.stat().st_size < 0.3 * full  # what is left is the history, and a tenth that is kept for the next
    history = await database.read(lambda c: c.execute("SELECT count(*) FROM job_history").fetchone()[0])
    assert history < QueueSettings().history_rows + 1024
    assert await database.problems(is_quick=False) == []


async def test_a_small_file_is_not_shrunk_again_and_again(opened):
    database, queue = await opened()
    await owe(queue, 1, 500)
    await work_off(database, queue)
    assert await database.shrink() == 0


async def test_readers_without_a_pause_do_not_keep_the_log_from_being_emptied(tmp_path, opened, monkeypatch):
    monkeypatch.setattr("msearchd.aio.sqlite._LOG_MAX_BYTES", 1 * MB)
    monkeypatch.setattr("msearchd.aio.sqlite._LOG_LOOK_EVERY", 4)
    log = tmp_path / "db-wal"
    database, queue = await opened()
    is_over = False
    reads = 0

    async def read_all_the_time() -> None:
        nonlocal reads
        while not is_over:  # a snapshot that begins before the other one ends: the log can never begin anew by itself
            await database.read(lambda c: (c.execute("SELECT count(*) FROM job").fetchone(), time.sleep(0.03)))
            reads += 1

    reading = [asyncio.create_task(read_all_the_time()) for _ in range(3)]
    biggest = 0
    for start in range(0, 60_000, 500):
        await queue.enqueue([Owed(AssetId(n + 1), Step.EXTRACT) for n in range(start, start + 500)])
        biggest = max(biggest, log.stat().st_size)
    is_over = True
    await asyncio.gather(*reading)
    assert reads > 10
    assert biggest < 5 * MB, biggest
    assert (await queue.counts()).ready == 60_000


# -- what a power cut may cost -------------------------------------------------------------------------------------------


def found_after_a_power_cut(path: Path, copy: Path, *, log_bytes: int) -> list[int]:
    """Assets in a copy of the files whose log was synced up to *log_bytes* only; the copy must be sound."""
    shutil.copy(path, copy)
    log = copy.with_name(copy.name + "-wal")
    shutil.copy(path.with_name(path.name + "-wal"), log)
    os.truncate(log, log_bytes)
    c = sqlite3.connect(copy)
    assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = [row[0] for row in c.execute("SELECT asset FROM job ORDER BY asset")]
    c.close()
    return found


async def test_a_power_cut_costs_the_last_commits_at_most_and_never_an_older_one(tmp_path, opened):
    database, queue = await opened()
    for asset in range(1, 101):
        await queue.enqueue([Owed(AssetId(asset), Step.EXTRACT)])
    await database.checkpoint()  # as by itself after three quiet seconds: from here on these are safe
    for asset in range(101, 201):
        await queue.enqueue([Owed(AssetId(asset), Step.EXTRACT)])
    size = (tmp_path / "db-wal").stat().st_size
    spread = random.Random(5)
    seen = set()
    for number in range(40):
        cut = spread.randrange(size + 1)
        found = found_after_a_power_cut(tmp_path / "db", tmp_path / f"cut{number}", log_bytes=cut)
        assert found == list(range(1, len(found) + 1))  # a prefix of what was acknowledged, in order
        assert len(found) >= 100
        seen.add(len(found))
    assert len(seen) > 10


async def test_with_is_durable_what_was_acknowledged_was_synced_before(tmp_path, opened):
    database, queue = await opened(is_durable=True)
    assert await database.write(lambda c: c.execute("PRAGMA synchronous").fetchone()[0]) == 2  # FULL
    for asset in range(1, 31):
        await queue.enqueue([Owed(AssetId(asset), Step.EXTRACT)])
        size = (tmp_path / "db-wal").stat().st_size  # FULL syncs the log before a commit returns: so far it is safe
        if asset % 10 == 0:
            found = found_after_a_power_cut(tmp_path / "db", tmp_path / f"cut{asset}", log_bytes=size)
            assert found == list(range(1, asset + 1))
