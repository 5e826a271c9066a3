"""The scan side of watching: bars B7 (unchanged scan), B10 (loop lag in a burst) and growth to a million files.

Run by watch_bench. Every ratio is of CPU time against the bare walk (scandir and stat of every file, in this language) that took
turns with it over the same tree. "catalog": what is known lies in the daemon's own database, read for every slice; else in the
tests' tree in memory. The least of the rounds counts: what else a busy machine does only ever adds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from watch_world import ONE, MemoryTree, watching

from bench import watch_loads as loads
from bench.common import Report
from bench.watch_events import a_folder, age, rss_kib
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import Root
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.intake import Intake
from msearchd.settings import QueueSettings, WatchSettings
from msearchd.store.catalog import Catalog
from msearchd.watch.changes import Change, DirScanned
from msearchd.watch.disk import RootContext, Walk
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import Rules
from msearchd.watch.watcher import Watcher

FIND = ["-printf", "%s %T@ %i %C@ %p\\n"]
_DROP = Path("/proc/sys/vm/drop_caches")


class FoldersOnly:
    """A sink that keeps of all changes what an unchanged scan reads: the folders. A million file rows would take minutes."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database, self._catalog = database, catalog

    async def apply(self, changes: Sequence[Change]) -> None:
        scanned = [change for change in changes if isinstance(change, DirScanned)]

        def write(c) -> None:
            for s in scanned:
                self._catalog.scanned_dir_in(
                    c, s.root, s.path, inode=s.inode, mtime_ns=s.mtime_ns, ctime_ns=s.ctime_ns, signature=s.signature,
                    scanned_ms=s.scanned_ms,
                )  # fmt: skip

        if scanned:
            await self._database.write(write)


@contextlib.asynccontextmanager
async def over_catalog(folder: Path, *, backend: str, with_files: bool = False) -> AsyncIterator[Watcher]:
    """A watcher whose memory is the daemon's database. *with_files*: with its intake and queue too."""
    state = folder / f"state-{backend}"
    state.mkdir(exist_ok=True)
    database = await Database.open(state / "db")
    catalog = Catalog(database)
    await catalog.open()
    queue = JobQueue(database, QueueSettings(), now_ms=lambda: time.time_ns() // 1_000_000)
    await queue.open()
    root = os.fsencode(folder / "root")
    root_id = await database.write(lambda c: catalog.add_root_in(c, root))
    sink = Intake(database, catalog, queue) if with_files else FoldersOnly(database, catalog)
    watcher = Watcher(WatchSettings(backend=backend), catalog, sink, state_dir=state)
    task = asyncio.create_task(watcher.run())
    await watcher.add_root(Root(root_id, root))
    try:
        yield watcher
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await queue.close()
        await database.close()


def _cpu_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _find_s(root: Path) -> float:
    """CPU of `find`, which lists and stats as a scan must."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["find", str(root), *FIND], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def _costs(watcher: Watcher, root: Path, rounds: int) -> dict[str, float]:
    """Least CPU seconds of an unchanged scan and a bare walk, taking turns, and of find after them."""
    rows: dict[str, list[float]] = {"bare": [], "scan": []}
    for _ in range(rounds):
        rows["bare"].append(_cpu_of(lambda: loads.bare_walk(root)))
        before = time.process_time()
        await watcher.scan_now(ONE)
        rows["scan"].append(time.process_time() - before)
    rows["find"] = [_find_s(root) for _ in range(3)]
    return {name: min(values) for name, values in rows.items()}


async def b7_scans(base: Path, report: Report, files: int, rounds: int) -> None:
    """An unchanged scan beside a bare walk and find; phase 1 of a start as a part of it."""
    rounds = max(rounds, 9)
    with a_folder(base) as folder:
        root, memory = folder / "root", MemoryTree()
        loads.make_tree(root, files)
        best: dict[str, float] = {}
        for backend in ("polling", "inotify"):
            async with watching(root, folder / "state", memory=memory, backend=backend) as (watcher, _):
                await watcher.sync(deadline_s=600)
                _tell(report, backend, await _costs(watcher, root, rounds), files)
        for backend in ("polling", "inotify"):
            async with over_catalog(folder, backend=backend) as watcher:
                await watcher.sync(deadline_s=600)
                best = await _costs(watcher, root, rounds)
                _tell(report, f"{backend}, catalog", best, files)
        folders = _folders(root)
        read_s = min(_cpu_of(lambda: _read_all(root, folders)) for _ in range(rounds))
        report.bar("B7 names and stats alone, speed against find -printf", value=best["find"] / read_s, at_least=0.7)
        report.row("B7 whole scan, speed against find -printf", polling_catalog=best["find"] / best["scan"])
        age(memory)
        for backend, at_most in (("polling", 0.15), ("inotify", None)):
            phase_one = min([await _phase_one_s(root, folder / "state", memory, backend) for _ in range(3)])
            if at_most is None:
                report.row("B7 phase 1 with watching each folder, by a whole scan", inotify=phase_one / best["scan"])
            else:
                report.bar("B7 phase 1 by a whole scan", value=phase_one / best["scan"], at_most=at_most)


def _tell(report: Report, name: str, best: dict[str, float], files: int) -> None:
    report.row(f"B7 unchanged scan, {name}", us_a_file=best["scan"] / files * 1e6, bare_us=best["bare"] / files * 1e6)
    report.bar(f"B7 unchanged scan by a bare walk, {name}", value=best["scan"] / best["bare"], at_most=1.25)


def _context(root: Path) -> RootContext:
    path = os.fsencode(root)
    return RootContext(Root(ONE, path), Rules(path, WatchSettings()), NoCoverage(), 1 << 40)


def _folders(root: Path) -> dict[bytes, int]:
    """Every folder and its number, as a first scan finds them, parents first."""
    found, stack = {}, [b""]
    with Walk(_context(root)) as walk:
        while stack:
            at = stack.pop()
            listing = walk.read_whole(at)
            found[at] = listing.signature
            stack += [at + b"/" + name if at else name for name in listing.subdirs]
    return found


def _read_all(root: Path, folders: dict[bytes, int]) -> None:
    """List and stat all and compare each folder's number, as the scanning thread does, without the rest of a scan."""
    with Walk(_context(root)) as walk:
        for path, number in folders.items():
            walk.read(path, expected=number)


async def _phase_one_s(root: Path, state: Path, memory: MemoryTree, backend: str) -> float:
    async with watching(root, state, memory=memory, backend=backend) as (watcher, _):
        while not any(job.kind in {"stamps", "attach"} for job in watcher._scans._jobs):
            await asyncio.sleep(0)
        began = time.process_time()
        while any(job.kind in {"stamps", "attach", "quick"} for job in watcher._scans._jobs):
            await asyncio.sleep(0.001)
        return time.process_time() - began


# -- cold --------------------------------------------------------------------------------------------------------------


async def cold(base: Path, report: Report, files: int) -> None:
    """Wall time with the kernel's caches dropped, on a real disk: needs root, and is left out elsewhere."""
    if not os.access(_DROP, os.W_OK):
        print("     B7 cold: caches cannot be dropped here")
        return
    with a_folder(base) as folder:
        root = folder / "root"
        loads.make_tree(root, files)
        async with watching(root, folder / "state", backend="polling") as (watcher, _):
            await watcher.sync(deadline_s=600)
            speeds = []
            for _ in range(3):
                find_s = _after_drop(
                    lambda: subprocess.run(["find", str(root), *FIND], stdout=subprocess.DEVNULL, check=True)
                )
                os.sync()
                _DROP.write_text("3")
                began = time.perf_counter()
                await watcher.scan_now(ONE)
                speeds.append(find_s / (time.perf_counter() - began))
            report.bar(
                "B7 cold, speed of a whole scan against find -printf", value=statistics.median(speeds), at_least=1.2
            )


def _after_drop(work: Callable[[], object]) -> float:
    os.sync()
    _DROP.write_text("3")
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# -- growth ------------------------------------------------------------------------------------------------------------


async def growth(base: Path, report: Report, sizes: list[int]) -> None:
    """Cost a file of first and unchanged scans as the tree grows, by that of the bare walk over the same tree."""
    costs: dict[int, dict[str, float]] = {}
    for files in sizes:
        with a_folder(base) as folder:
            root = folder / "root"
            loads.make_tree(root, files)
            gc.collect()
            async with over_catalog(folder, backend="inotify") as watcher:
                began, clock = time.process_time(), time.perf_counter()
                await watcher.sync(deadline_s=3600)
                first, wall = time.process_time() - began, time.perf_counter() - clock
                best = await _costs(watcher, root, 2 if files > 300_000 else 9)
                costs[files] = {name: value / files * 1e6 for name, value in best.items()} | {
                    "first": first / files * 1e6
                }
                report.row(
                    f"growth, {files} files", first_us=costs[files]["first"], unchanged_us=costs[files]["scan"],
                    bare_us=costs[files]["bare"], find_us=costs[files]["find"], rss_mib=rss_kib() / 1024, first_wall_s=wall,
                )  # fmt: skip
                report.bar(f"B7 us a file of an unchanged scan, {files}", value=costs[files]["scan"], at_most=10)
                report.bar(f"B7 MiB resident, {files} files", value=rss_kib() / 1024, at_most=120)
    small, large = min(costs), max(costs)
    if small == large:
        return
    ours, bare, find = (costs[large][name] / costs[small][name] for name in ("scan", "bare", "find"))
    report.row(f"growth {small} to {large}", unchanged=ours, bare_walk=bare, find=find)
    report.bar(f"growth of what we add to it, {small} to {large}", value=ours / bare, at_most=1.15)
    first = costs[large]["first"] / costs[small]["first"]
    report.bar(f"growth of a first scan's cost a file, {small} to {large}", value=first, at_most=1.15)


# -- B10 ---------------------------------------------------------------------------------------------------------------


async def b10_loop_lag(base: Path, report: Report, files: int = 50_000) -> None:
    """How late the loop is while a burst of files is seen, compared, stored and owed; beside a loop that does nothing else."""
    with a_folder(base) as folder:
        async with over_catalog(folder, backend="inotify", with_files=True) as watcher:
            await watcher.sync(deadline_s=60)
            other = subprocess.Popen(
                [sys.executable, "-m", "bench.watch_scans", "metronome"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            lags: list[float] = []
            beat = asyncio.create_task(_beat(lags))
            await asyncio.to_thread(loads.run_load, f"nested-{files}", folder / "root")
            await watcher.sync(deadline_s=600)
            beat.cancel()
            out, _ = await asyncio.to_thread(other.communicate, b"\n")
    ours = statistics.quantiles(lags, n=100)[98] * 1000
    report.row(
        f"B10 loop lag in a burst of {files} files", p99_ms=ours, worst_ms=max(lags) * 1000, idle_loop_p99_ms=float(out)
    )
    report.bar(
        "B10 p99 of it in ms, less that of an idle loop beside it", value=max(0.0, ours - float(out)), at_most=15
    )


async def _beat(lags: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        lags.append(time.perf_counter() - began - 0.001)


async def _metronome() -> None:
    """An idle loop in a process of its own, until a line comes: p99 of its lag in ms."""
    lags: list[float] = []
    beat = asyncio.create_task(_beat(lags))
    await asyncio.to_thread(sys.stdin.readline)
    beat.cancel()
    print(statistics.quantiles(lags, n=100)[98] * 1000)


if __name__ == "__main__":
    asyncio.run(_metronome())
