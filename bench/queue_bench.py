"""The job queue against a bare sqlite3 loop with the same transactions, and against huey, litequeue and persist-queue.

    python -m bench.queue_bench [--jobs 20000] [--rounds 3] [--pending 1000000]

Ours: JobQueue's public calls, each acknowledged after its COMMIT, on a file in the temporary folder, WAL, NORMAL.
Bare: the same tables, the same statements, the same number of rows in a transaction, one thread, nothing around it.
Peers: their own SQLite queues as their manuals use them, one thread (threads make them slower).
All take turns in the same run. A ratio is of CPU time, of the least of the rounds each (what other work on the machine adds falls
out of it); a rate is of the clock on the wall, of the best round; beside it stands what a second of CPU does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from bench.common import Cost, Report, arguments
from bench.queue_peers import (
    huey_queue,
    huey_take,
    litequeue_queue,
    litequeue_take,
    persist_queue,
    persist_take,
    put_all,
)
from msearchd.aio.sqlite import Database
from msearchd.aio.sqlite_schema import statements
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, Owed, Priority, Step
from msearchd.jobs.claim import claim_in
from msearchd.jobs.moves import JobMoves
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings

SETTINGS = QueueSettings()
STEPS = [(Step.EXTRACT, None)]
WORKERS, CLAIM = 16, 8


def clock() -> int:
    return time.time_ns() // 1_000_000


class Folder:
    """Fresh file names in a temporary folder."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="queue-bench-"))
        self._number = 0

    def new(self) -> Path:
        self._number += 1
        return self.path / f"{self._number}.db"


# -- ours ----------------------------------------------------------------------------------------------------------------


async def with_queue(
    path: Path, work: Callable[[JobQueue], Coroutine[Any, Any, Any]], *, is_durable: bool = False
) -> Any:
    database = await Database.open(path, is_durable=is_durable)
    queue = JobQueue(database, SETTINGS, now_ms=clock)
    try:
        await queue.open()
        return await work(queue)
    finally:
        await queue.close()
        await database.close()


async def enqueue_singly(queue: JobQueue, jobs: int, callers: int, step: Step = Step.EXTRACT) -> None:
    numbers = iter(range(jobs))

    async def call() -> None:
        for number in numbers:
            await queue.enqueue([Owed(AssetId(number), step)])

    await asyncio.gather(*(call() for _ in range(callers)))


async def enqueue_lists(queue: JobQueue, jobs: int, size: int = 1000, first: int = 0, **fields: Any) -> None:
    for at in range(first, first + jobs, size):
        count = min(size, first + jobs - at)
        await queue.enqueue([Owed(AssetId(at + n), Step.EXTRACT, **fields) for n in range(count)])


async def drain(
    queue: JobQueue, jobs: int, *, workers: int = WORKERS, claim: int = CLAIM, is_grouped: bool = False
) -> None:
    """Claim by eights; complete each by itself, or all eight in a transaction of the caller, as a lane does."""
    left = jobs

    def complete_all(c: sqlite3.Connection, taken: list[Job]) -> None:
        for job in taken:
            queue.complete_in(c, job)

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= claim
            taken = await queue.claim(steps=STEPS, limit=claim, owner="w")
            if is_grouped:
                await queue._database.write(partial(complete_all, taken=taken))
                queue.notify()
            else:
                await asyncio.gather(*(queue.complete(job) for job in taken))

    await asyncio.gather(*(work() for _ in range(workers)))


def timed(path: Path, prepare: Callable[[JobQueue], Any], work: Callable[[JobQueue], Any], **options: Any) -> Cost:
    """The cost of *work* alone."""

    async def both(queue: JobQueue) -> Cost:
        await prepare(queue)
        began, cpu = time.perf_counter(), time.process_time()
        await work(queue)
        return Cost(time.perf_counter() - began, time.process_time() - cpu)

    return asyncio.run(with_queue(path, both, **options))


# -- bare ----------------------------------------------------------------------------------------------------------------


def bare_connection(path: Path) -> sqlite3.Connection:
    c = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=4000"):
        c.execute(f"PRAGMA {pragma}").fetchall()
    for statement in statements((importlib.resources.files("msearchd.jobs.sql") / "0001_jobs.sql").read_text()):
        c.execute(statement)
    return c


def bare_enqueue(c: sqlite3.Connection, jobs: int, group: int) -> None:
    moves = JobMoves(SETTINGS, now_ms=clock)
    for at in range(0, jobs, group):
        c.execute("BEGIN IMMEDIATE")
        for number in range(at, min(jobs, at + group)):
            moves.enqueue_in(c, [Owed(AssetId(number), Step.EXTRACT)])
        c.execute("COMMIT")


def bare_drain(c: sqlite3.Connection, group: int) -> None:
    moves = JobMoves(SETTINGS, now_ms=clock)
    while True:
        claimed: list[Job] = []
        c.execute("BEGIN IMMEDIATE")
        for _ in range(group):
            claimed += claim_in(c, steps=STEPS, limit=CLAIM, kept={}, owner="w", serial=1, now_ms=clock())
        c.execute("COMMIT")
        if not claimed:
            return
        c.execute("BEGIN IMMEDIATE")
        for job in claimed:
            moves.complete_in(c, job)
        c.execute("COMMIT")


# -- the rows ------------------------------------------------------------------------------------------------------------


class Rounds:
    """Costs that candidates measured themselves, preparation left out."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def run(self, candidates: dict[str, Callable[[], Cost]]) -> dict[str, list[Cost]]:
        found: dict[str, list[Cost]] = {name: [] for name in candidates}
        for _ in range(self.rounds):
            for name, candidate in candidates.items():
                found[name].append(candidate())
        return found


def ratio(ours: list[Cost], theirs: list[Cost]) -> float:
    return min(cost.cpu_s for cost in theirs) / min(cost.cpu_s for cost in ours)


def best_s(costs: list[Cost]) -> float:
    return min(cost.wall_s for cost in costs)


def least_cpu_s(costs: list[Cost]) -> float:
    return min(cost.cpu_s for cost in costs)


def scaled(cost: Cost, by: float) -> Cost:
    return Cost(cost.wall_s * by, cost.cpu_s * by)


def clocked(function: Callable[[], object]) -> Cost:
    began, cpu = time.perf_counter(), time.process_time()
    function()
    return Cost(time.perf_counter() - began, time.process_time() - cpu)


async def _nothing(_: JobQueue) -> None:
    pass


def enqueue_rows(report: Report, folder: Folder, jobs: int, rounds: int) -> None:
    def ours(callers: int, **options: Any) -> Callable[[], Cost]:
        return lambda: timed(folder.new(), _nothing, lambda q: enqueue_singly(q, jobs, callers), **options)

    def bare(group: int) -> Callable[[], Cost]:
        def run() -> Cost:
            with contextlib.closing(bare_connection(folder.new())) as c:
                return clocked(lambda: bare_enqueue(c, jobs, group))

        return run

    few = max(200, jobs // 50)  # persist-queue does some 100 a second

    def peer(make: Callable[[Path], Any], put: str, count: int, as_item: Callable[[int], Any]) -> Callable[[], Cost]:
        def run() -> Cost:
            queue = make(folder.new())
            return scaled(clocked(lambda: put_all(getattr(queue, put), count, as_item)), jobs / count)

        return run

    times = Rounds(rounds).run({
        "ours, 50 callers": ours(50), "ours, 200 callers": ours(200),
        "bare sqlite3, 50 in a transaction": bare(50), "bare sqlite3, 200 in a transaction": bare(200),
        "ours, lists of 1000": lambda: scaled(timed(folder.new(), _nothing, lambda q: enqueue_lists(q, jobs * 4)), 1 / 4),
        "ours, every commit synced, 50 callers": ours(50, is_durable=True),
        "huey": peer(huey_queue, "enqueue", jobs, lambda n: b"%d" % n),
        "litequeue": peer(litequeue_queue, "put", jobs, str),
        "persist-queue": peer(persist_queue, "put", few, lambda n: n),
    })  # fmt: skip
    for name, seconds in times.items():
        report.row(f"enqueue: {name}", per_s=jobs / best_s(seconds), per_cpu_s=jobs / least_cpu_s(seconds))
    report.bar(
        "acknowledged single enqueues a second, 50 callers",
        value=jobs / best_s(times["ours, 50 callers"]),
        at_least=20_000,
    )
    report.bar("enqueues a second in lists of 1000", value=jobs / best_s(times["ours, lists of 1000"]), at_least=80_000)
    report.bar(
        "enqueues a second, each commit synced",
        value=jobs / best_s(times["ours, every commit synced, 50 callers"]),
        at_least=5_000,
    )
    for callers in (50, 200):
        bare_times = times[f"bare sqlite3, {callers} in a transaction"]
        # The rest is asyncio: a task switch, two futures and a thread hop for each call.
        report.bar(
            f"enqueue against bare sqlite3, {callers} callers",
            value=ratio(times[f"ours, {callers} callers"], bare_times),
            at_least=0.4,
        )
    for name in ("huey", "litequeue", "persist-queue"):
        report.bar(
            f"enqueue against {name}, 200 callers", value=ratio(times["ours, 200 callers"], times[name]), at_least=2
        )
        report.bar(f"enqueue against {name}, lists", value=ratio(times["ours, lists of 1000"], times[name]), at_least=6)


def claim_rows(report: Report, folder: Folder, jobs: int, rounds: int) -> None:
    def bare() -> Cost:
        with contextlib.closing(bare_connection(folder.new())) as c:
            bare_enqueue(c, jobs, 1000)
            return clocked(lambda: bare_drain(c, WORKERS))

    def ours(**options: bool) -> Cost:
        return timed(folder.new(), lambda q: enqueue_lists(q, jobs), lambda q: drain(q, jobs, **options))

    few = max(200, jobs // 50)

    def peer(
        make: Callable[[Path], Any],
        put: str,
        take: Callable[[Any, int], None],
        as_item: Callable[[int], Any],
        count: int,
    ) -> Callable[[], Cost]:
        def run() -> Cost:
            queue = make(folder.new())
            put_all(getattr(queue, put), count, as_item)
            return scaled(clocked(lambda: take(queue, count)), jobs / count)

        return run

    times = Rounds(rounds).run({
        "ours": ours, "ours, in groups of 8": lambda: ours(is_grouped=True), "bare sqlite3": bare,
        "huey (dequeue alone: at most once)": peer(huey_queue, "enqueue", huey_take, lambda n: b"%d" % n, jobs // 4),
        "litequeue": peer(litequeue_queue, "put", litequeue_take, str, jobs // 10),
        "persist-queue": peer(persist_queue, "put", persist_take, lambda n: n, few),
    })  # fmt: skip
    for name, seconds in times.items():
        report.row(
            f"claim(8) and complete: {name}", per_s=jobs / best_s(seconds), per_cpu_s=jobs / least_cpu_s(seconds)
        )
    report.bar(
        "claim and complete a second, in groups of 8",
        value=jobs / best_s(times["ours, in groups of 8"]),
        at_least=30_000,
    )
    report.bar(
        "claim(8) and complete a second, each acknowledged by itself",
        value=jobs / best_s(times["ours"]),
        at_least=30_000,
    )
    report.bar(
        "claim and complete against bare sqlite3", value=ratio(times["ours"], times["bare sqlite3"]), at_least=0.4
    )
    # huey's dequeue is a DELETE before the work: a job in work is lost by a crash. A row, no bar: it does half of the work.
    for name in ("litequeue", "persist-queue"):
        report.bar(f"claim and complete against {name}", value=ratio(times["ours"], times[name]), at_least=5)


async def delay_all(queue: JobQueue, count: int) -> None:
    """Rows delayed for hours, at a better priority than what is ready: written directly, as 200k failures would leave them."""
    await enqueue_lists(queue, count, first=10_000_000, priority=Priority.INTERACTIVE)
    far = clock() + 3_600_000
    await queue._database.write(
        lambda c: c.execute(f"UPDATE job SET state='delayed', run_at_ms={far} WHERE asset >= 10000000").rowcount
    )


def size_rows(report: Report, folder: Folder, jobs: int, pending: int, rounds: int) -> None:
    base, delayed, restarts = [], [], []
    for _ in range(rounds):
        base.append(timed(folder.new(), lambda q: enqueue_lists(q, jobs), lambda q: drain(q, jobs)))

        async def with_delayed(queue: JobQueue) -> None:
            await delay_all(queue, 200_000)
            await enqueue_lists(queue, jobs)

        delayed.append(timed(folder.new(), with_delayed, lambda q: drain(q, jobs)))
    report.bar("claims beside 200,000 delayed jobs, against none", value=ratio(delayed, base), at_least=0.5)

    path, few = folder.new(), folder.new()
    timed(path, lambda q: enqueue_lists(q, pending), _nothing)
    timed(few, lambda q: enqueue_lists(q, 1000), _nothing)
    full_claims, full_enqueues, empty_enqueues = [], [], []
    for number in range(rounds):
        first = pending + number * jobs
        full_claims.append(timed(path, _nothing, lambda q: drain(q, jobs)))
        full_enqueues.append(timed(path, _nothing, lambda q, f=first: enqueue_lists(q, jobs, first=f)))
        empty_enqueues.append(timed(folder.new(), _nothing, lambda q: enqueue_lists(q, jobs)))
        restarts.append(asyncio.run(with_queue(path, _cost_of_counts)))
    report.bar(f"claims with {pending:,} pending, against {jobs:,}", value=ratio(full_claims, base), at_least=0.5)
    report.bar(
        f"enqueues with {pending:,} pending, against none", value=ratio(full_enqueues, empty_enqueues), at_least=0.5
    )
    report.row(f"counts() with {pending:,} pending", ms=min(restarts) * 1000)
    opened = [clocked(lambda: asyncio.run(with_queue(path, _nothing))) for _ in range(rounds)]
    report.bar(f"open with {pending:,} pending, seconds", value=best_s(opened), at_most=1.0)


async def growth_rows(report: Report, folder: Folder, pending: int, rounds: int) -> None:
    """CPU of a job that is owed, claimed and completed beside 10,000, 100,000 and *pending* others, taking turns."""
    turn = 5000
    sizes = sorted({10_000, 100_000, pending})
    costs: dict[int, list[float]] = {size: [] for size in sizes}
    async with contextlib.AsyncExitStack() as stack:
        queues = {}
        for size in sizes:
            database = await Database.open(folder.new())
            stack.push_async_callback(database.close)
            queues[size] = JobQueue(database, SETTINGS, now_ms=clock)
            await queues[size].open()
            stack.push_async_callback(queues[size].close)
            await enqueue_lists(queues[size], size)
        for number in range(rounds * 3):
            for size in sizes if number % 2 else reversed(sizes):
                began = time.process_time()
                await enqueue_lists(queues[size], turn, first=size + number * turn)
                await drain(queues[size], turn, is_grouped=True)
                costs[size].append((time.process_time() - began) / turn)
    least = {size: min(found) for size, found in costs.items()}
    for size in sizes:
        report.row(f"CPU a job, {size:,} pending", us=least[size] * 1e6)
    for size in sizes[1:]:
        report.bar(f"CPU a job with {size:,} pending, against 10,000", value=least[size] / least[10_000], at_most=1.15)


async def _cost_of_counts(queue: JobQueue) -> float:
    began = time.perf_counter()
    await queue.counts()
    return time.perf_counter() - began


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--pending", type=int, default=1_000_000)
    options = parser.parse_args()
    report, folder = Report("queue", options.out), Folder()
    try:
        enqueue_rows(report, folder, options.jobs, options.rounds)
        claim_rows(report, folder, options.jobs, options.rounds)
        size_rows(report, folder, options.jobs, options.pending, options.rounds)
        asyncio.run(growth_rows(report, folder, options.pending, options.rounds))
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
