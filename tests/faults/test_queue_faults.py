"""The queue under kill -9, a full disk, a locked file: nothing acknowledged is lost, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Owed, Step
from msearchd.errors import RetryLater
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

ROUNDS = 100 if os.environ.get("MSEARCHD_LONG") else 6
ANY = [(step, None) for step in Step]

#: Enqueues and completes as fast as it can; a line on stdout is an acknowledgement.
WORKER = """
import asyncio, sys, time
from pathlib import Path
from msearchd.aio.sqlite import Database
from msearchd.domain.job import Owed, Step
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

async def main(path, first):
    database = await Database.open(Path(path))
    queue = JobQueue(database, QueueSettings(max_attempts=100), now_ms=lambda: time.time_ns() // 1_000_000)
    await queue.open()
    numbers = iter(range(first, first + 10_000_000))
    out = sys.stdout.buffer
    async def change():
        for number in numbers:
            await queue.enqueue([Owed(number, Step.EXTRACT)])
            out.write(b"+%d\\n" % number)
            out.flush()
    async def work():
        while True:
            for job in await queue.claim(steps=[(Step.EXTRACT, None)], limit=4, owner="w"):
                out.write(b"?%d\\n" % job.asset)
                out.flush()
                await queue.complete(job)
                out.write(b"-%d\\n" % job.asset)
                out.flush()
    await asyncio.gather(*(change() for _ in range(8)), *(work() for _ in range(2)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def clock() -> int:
    return time.time_ns() // 1_000_000


async def opened(path: Path, **settings) -> tuple[Database, JobQueue]:
    database = await Database.open(path)
    queue = JobQueue(database, QueueSettings(**settings), now_ms=clock)
    await queue.open()
    return database, queue


@pytest.mark.timeout(900)
def test_killed_at_any_moment_every_acknowledgement_stands(tmp_path):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    path, acked, done, claimed = tmp_path / "db", set(), set(), set()
    for number in range(ROUNDS):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), str(1 + number * 1_000_000)], stdout=subprocess.PIPE
        )
        worker.stdout.peek(1)  # it is at work
        time.sleep(rng.uniform(0.0, 0.4))
        worker.send_signal(signal.SIGKILL)
        lines = worker.stdout.read().split(b"\n")[:-1]  # an unfinished line is no acknowledgement
        worker.wait()
        worker.stdout.close()
        acked |= {int(line[1:]) for line in lines if line.startswith(b"+")}
        claimed |= {int(line[1:]) for line in lines if line.startswith(b"?")}
        done |= {int(line[1:]) for line in lines if line.startswith(b"-")}
        with sqlite3.connect(path) as c:
            open_rows = {row[0] for row in c.execute("SELECT asset FROM job")}
            assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        c.close()
        assert not open_rows & done, "an acknowledged completion came back"
        # Claimed and not acknowledged: its completion may have been committed before the kill.
        assert acked - done - claimed <= open_rows, "an acknowledged job is lost"
    assert len(acked) > 50 * ROUNDS
    assert done


async def test_a_full_disk_is_retry_later_loses_nothing_and_passes(tmp_path):
    database, queue = await opened(tmp_path / "db")
    pages = await database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 40}").fetchone())
    acked: list[int] = []

    async def fill() -> None:
        for number in range(100_000):
            await queue.enqueue([Owed(AssetId(number), Step.EXTRACT)])
            acked.append(number)

    with pytest.raises(RetryLater, match="full") as caught:
        await fill()
    assert "space" in caught.value.hint
    assert acked
    jobs = await queue.claim(steps=ANY, limit=4, owner="w")  # work in hand can still end: it makes room
    assert len(jobs) == 4
    await database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
    await queue.enqueue([Owed(AssetId(500_000), Step.EXTRACT)])
    assert (await queue.counts()).open == len(acked) + 1
    assert await database.problems(is_quick=False) == []
    await queue.close()
    await database.close()


async def test_a_neighbour_that_fails_in_the_same_transaction_takes_nobody_with_it(tmp_path):
    database, queue = await opened(tmp_path / "db")

    def broken(c: sqlite3.Connection) -> None:
        queue.enqueue_in(c, [Owed(AssetId(999), Step.EXTRACT)])
        message = "broken"
        raise ValueError(message)

    results = await asyncio.gather(
        *(queue.enqueue([Owed(AssetId(n), Step.EXTRACT)]) for n in range(5)),
        database.write(broken),
        *(queue.enqueue([Owed(AssetId(n), Step.EXTRACT)]) for n in range(5, 10)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 5 + [ValueError] + [type(None)] * 5
    assert (await queue.counts()).ready == 10
    await queue.close()
    await database.close()


async def test_a_database_locked_by_another_program_is_retry_later_and_passes(tmp_path, monkeypatch):
    monkeypatch.setattr("msearchd.aio.sqlite_care.BUSY_TIMEOUT_MS", 50)
    database, queue = await opened(tmp_path / "db")
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    results = await asyncio.gather(
        *(queue.enqueue([Owed(AssetId(n), Step.EXTRACT)]) for n in range(50)), return_exceptions=True
    )
    assert {type(result) for result in results} == {RetryLater}
    assert time.monotonic() - started < 2  # one wait for the group, not one for each
    assert (await queue.counts()).open == 0  # reading goes on beside the lock
    other.execute("ROLLBACK")
    other.close()
    await queue.enqueue([Owed(AssetId(1), Step.EXTRACT)])
    assert (await queue.counts()).ready == 1
    await queue.close()
    await database.close()


#: Its files may not grow beyond 4 MB: writes fail with EFBIG, which SQLite calls an I/O error.
LIMITED = """
import asyncio, resource, signal, sys, time
from pathlib import Path
from msearchd.aio.sqlite import Database
from msearchd.domain.job import Owed, Step
from msearchd.errors import RetryLater
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

async def main(path):
    database = await Database.open(Path(path))
    queue = JobQueue(database, QueueSettings(), now_ms=lambda: time.time_ns() // 1_000_000)
    await queue.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, resource.RLIM_INFINITY))
    acked = 0
    try:
        while True:
            await queue.enqueue([Owed(acked, Step.EXTRACT)])
            acked += 1
    except RetryLater as error:
        print(error.sentence(), file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await queue.enqueue([Owed(10_000_000, Step.EXTRACT)])
    print(acked + 1, (await queue.counts()).open, await database.problems(is_quick=False))
    await queue.close()
    await database.close()

asyncio.run(main(sys.argv[1]))
"""


def test_writes_that_fail_in_the_kernel_lose_nothing_acknowledged(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "db")], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    acked, found, problems = ended.stdout.split(maxsplit=2)
    assert acked == found
    assert int(acked) > 100
    assert problems.strip() == "[]"
    assert "disk of data_dir" in ended.stderr


#: Goes on after each refusal; says what was acknowledged.
STUBBORN = """
import asyncio, sys, time
from pathlib import Path
from msearchd.aio.sqlite import Database
from msearchd.domain.job import Owed, Step
from msearchd.errors import RetryLater
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

async def main(path):
    database = await Database.open(Path(path))
    try:
        await work(database)
    finally:
        await database.close()

async def work(database):
    queue = JobQueue(database, QueueSettings(), now_ms=lambda: time.time_ns() // 1_000_000)
    await queue.open()
    print("started", flush=True)
    refused = 0
    for number in range(1, 61):
        while True:
            try:
                await queue.enqueue([Owed(number, Step.EXTRACT)])
                break
            except RetryLater:
                refused += 1
        if number % 10 == 0:
            while True:
                try:
                    await database.checkpoint()
                    break
                except RetryLater:
                    refused += 1
        print("+%d" % number, flush=True)
    await queue.close()
    print("refused", refused, flush=True)

asyncio.run(main(sys.argv[1]))
"""
STRACE = shutil.which("strace")
#: What fails, and how; the sweep says at which call.
INJECTIONS = (
    "pwrite64:error=ENOSPC:when={n}..{m}",
    "pwrite64:error=EIO:when={n}..{m}",
    "fdatasync,fsync:error=EIO:when={n}..{m}",
    "pwrite64:signal=KILL:when={n}",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
@pytest.mark.parametrize("injection", INJECTIONS)
def test_an_error_at_the_nth_write_or_sync_loses_nothing_acknowledged(tmp_path, injection):
    refusals = 0
    step = 1 if os.environ.get("MSEARCHD_LONG") else 37
    for number in range(1, 300, step):
        path = tmp_path / f"{number}.db"
        inject = injection.format(n=number, m=number + 2)
        ended = subprocess.run(
            [
                STRACE,
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                f"inject={inject}",
                sys.executable,
                "-c",
                STUBBORN,
                str(path),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "ptrace" in ended.stderr:
            pytest.skip("tracing is not permitted here")
        acked = {int(line[1:]) for line in ended.stdout.splitlines() if line.startswith("+")}
        if (
            "KILL" not in injection and "started" in ended.stdout
        ):  # the first calls fail the start, which says so and ends
            assert "refused" in ended.stdout, ended.stderr
            refusals += int(ended.stdout.rsplit(maxsplit=1)[1])
        if not path.exists():
            continue
        c = sqlite3.connect(path)
        assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        has_table = c.execute("SELECT 1 FROM sqlite_master WHERE name = 'job'").fetchone()
        found = {row[0] for row in c.execute("SELECT asset FROM job")} if has_table else set()
        c.close()
        assert acked <= found, f"lost at call {number}"
    assert refusals or "KILL" in injection or "sync" in injection


async def test_a_database_that_was_damaged_says_what_to_do(tmp_path):
    path = tmp_path / "db"
    path.write_bytes(b"this is no database at all, but long enough to be read as one" * 100)
    from msearchd.errors import Misconfigured

    with pytest.raises(Misconfigured, match="damaged") as caught:
        await Database.open(path)
    assert "aside" in caught.value.hint
