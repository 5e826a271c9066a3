"""Watching and scanning: the bars B1 to B7, each with its peer in the same run.

    python -m bench.watch_bench [--files 20000] [--folder /dev/shm] [--only B1,B7] [--growth 10000,100000] [--idle SECONDS]

What is known is kept in memory by the tests' own tree, so the catalog's cost is not in it. CPU where a bar is about work, wall
where it is about waiting. Peers that are not installed are left out and named. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from watch_world import ONE, MemoryTree, differences, may_fanotify, watching

from bench import watch_loads as loads
from bench.common import Report, arguments, tree_cpu_s
from msearchd.watch.changes import FileSeen
from msearchd.watch.settler import Settler
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources.inotify import InotifySource

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
FIND = ["-printf", "%s %T@ %i %C@ %p\\n"]
SETTLE_S = 0.2


@contextlib.contextmanager
def a_folder(base: Path):
    folder = Path(tempfile.mkdtemp(dir=base))
    (folder / "root").mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def used_cpu_s() -> float:
    """Of this process and what lives below it (the reader), without reaped loads."""
    return tree_cpu_s(os.getpid()) - sum(os.times()[2:4])


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


async def b1_bursts(base: Path, report: Report) -> None:
    """Nothing lost, no overflow, half of watchdog's CPU; the peers' own losses beside it."""
    cpu: dict[str, float] = {}
    for backend in ["inotify", "watchdog", *(["fanotify"] if may_fanotify() else [])]:
        with a_folder(base) as folder:
            async with watching(folder / "root", folder / "state", backend=backend) as (watcher, memory):
                await watcher.sync(deadline_s=60)
                before = used_cpu_s()
                await asyncio.to_thread(loads.run_load, "burst", folder / "root")
                ended = time.perf_counter()
                await watcher.sync(deadline_s=120)
                lag_s, cpu[backend] = time.perf_counter() - ended, used_cpu_s() - before
                lost = len(differences(memory, folder / "root"))
                report.row(f"B1 burst, {backend}", lost=lost, cpu_s=cpu[backend], lag_s=lag_s)
                report.bar(f"B1 lost in a burst, {backend}", value=lost, at_most=0)
                if backend == "inotify":
                    report.bar("B1 overflows of the kernel's queue", value=watcher.snapshot().overflows, at_most=0)
    report.bar("B1 CPU against the same with watchdog", value=cpu["inotify"] / cpu["watchdog"], at_most=0.5)
    for name, peer in (
        ("watchdog alone", loads.watchdog_seen), ("watchfiles alone", loads.watchfiles_seen),
        ("watchman alone", loads.watchman_seen),
    ):  # fmt: skip
        with a_folder(base) as folder:
            seen = peer(folder / "root")
            if seen is None:
                print(f"     B1 {name}: not here")
            else:
                report.row(f"B1 burst, {name}", lost=seen[1], cpu_s=seen[0])


def b2_parsing(report: Report, state: Path) -> None:
    """Events to hints to settled places, offline; and the share of it that bare parsing takes."""
    source = InotifySource(notify=lambda: None, state_dir=state)
    source._tree.add_root(ONE)
    for n in range(51):
        source._tree.put((ONE, b"d%d" % n if n else b""), lambda n=n: n + 1, is_elsewhere=lambda _: False)
    buffers = [
        b"".join(
            abi.HEADER.pack((k * 50 + m) // 40 % 51 + 1, abi.CREATE if m % 2 else abi.CLOSE_WRITE, 0, 16)
            + (b"f%09d" % ((k * 2000 + m) // 2 % 50_000)).ljust(16, b"\0")
            for m in range(2000)
        )
        for k in range(250)
    ]
    settler = Settler()
    began = time.process_time()
    for buffer in buffers:
        source._on_events(buffer)
        settler.observe_all(source.hints(), now=1.0)
    report.bar("B2 events parsed and coalesced a second", value=500_000 / (time.process_time() - began), at_least=5e5)


async def b2_flood(base: Path, report: Report) -> None:
    """Two threads that hold the interpreter, and a program that makes files as fast as it can."""
    with a_folder(base) as folder:
        for n in range(40):
            (folder / "root" / str(n)).mkdir()
        async with watching(folder / "root", folder / "state", backend="inotify") as (watcher, memory):
            await watcher.sync(deadline_s=60)
            stop = threading.Event()
            threads = [threading.Thread(target=_spin, args=(stop,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            took_s = await asyncio.to_thread(loads.run_load, "flood", folder / "root")
            stop.set()
            for thread in threads:
                thread.join()
            await watcher.sync(deadline_s=120)
            report.row("B2 flood beside two busy threads", events_a_second=120_000 / took_s)
            report.bar("B2 lost in the flood", value=len(differences(memory, folder / "root")), at_most=0)
            report.bar("B2 overflows in the flood", value=watcher.snapshot().overflows, at_most=0)


def _spin(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


async def b3_setup(base: Path, report: Report, dirs: int) -> None:
    """Watches on many folders: time, memory, renames of folders, cost of an event."""
    with a_folder(base) as folder:
        root = folder / "root"
        loads.make_dirs(root, dirs)
        raw_s = min(loads.raw_setup_s(root) for _ in range(3))
        peer_s = loads.inotifywait_setup_s(root)
        memory = MemoryTree()
        async with watching(root, folder / "state", memory=memory, backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=300)
        _age(memory)
        gc.collect()
        before_kib = rss_kib()
        began = time.perf_counter()
        async with watching(root, folder / "state", memory=memory, backend="inotify") as (watcher, _):
            while watcher.snapshot().dirs_watched < dirs:
                await asyncio.sleep(0.005)
            setup_s = time.perf_counter() - began
            await watcher.sync(deadline_s=300)
            report.row("B3 set-up", dirs=dirs, seconds=setup_s, raw_s=raw_s, inotifywait_s=peer_s or 0.0)
            report.bar("B3 set-up by the raw prototype's", value=setup_s / raw_s, at_most=4.0)
            if peer_s:
                report.bar("B3 speed against inotifywait -r", value=peer_s / setup_s, at_least=0.8)
            gc.collect()
            report.bar("B3 KiB of memory a folder", value=(rss_kib() - before_kib) / dirs, at_most=0.5)
            names = sorted(root.glob("*/*/*"))[:300]
            before = used_cpu_s()
            for name in names:
                name.rename(name.with_name(name.name + "-moved"))
            await watcher.sync(deadline_s=60)
            report.bar("B3 CPU s of 300 renamed folders", value=used_cpu_s() - before, at_most=0.3)
            many = await _event_cost_s(watcher, root / "one")
    with a_folder(base) as folder:
        loads.make_dirs(folder / "root", 1000)
        async with watching(folder / "root", folder / "state", backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=60)
            few = await _event_cost_s(watcher, folder / "root" / "one")
    report.bar(f"B3 cost of an event at {dirs} folders by 1000", value=many / few, at_most=1.5)


async def _event_cost_s(watcher, folder: Path) -> float:
    folder.mkdir()
    costs = []
    for _ in range(5):
        await watcher.sync(deadline_s=60)
        before = used_cpu_s()
        for n in range(1000):
            (folder / f"{n}").write_bytes(b"x")
            if n % 50 == 0:
                await asyncio.sleep(0)
        await watcher.sync(deadline_s=60)
        costs.append(used_cpu_s() - before)
    return statistics.median(costs)


async def b6_latency(base: Path, report: Report, saves: int = 150) -> None:
    """A save until the sink has it, less the rest time; and one `sync` of a quiet watcher."""
    with a_folder(base) as folder:
        root = folder / "root"
        async with watching(root, folder / "state", backend="inotify", settle_closed_s=SETTLE_S) as (watcher, memory):
            await watcher.sync(deadline_s=20)
            arrived, real = asyncio.Event(), memory.apply

            async def apply(changes) -> None:
                await real(changes)
                if any(isinstance(change, FileSeen) for change in changes):
                    arrived.set()

            memory.apply = apply
            waits, syncs = [], []
            for n in range(saves):
                arrived.clear()
                began = time.perf_counter()
                (root / f"{n}.txt").write_bytes(b"x")
                await arrived.wait()
                waits.append((time.perf_counter() - began - SETTLE_S) * 1000)
            for _ in range(200):
                began = time.perf_counter()
                await watcher.sync(deadline_s=20)
                syncs.append((time.perf_counter() - began) * 1e6)
    report.row("B6 save to sink beyond the rest", p50_ms=statistics.median(waits), sync_p50_us=statistics.median(syncs))
    report.bar("B6 the same, p99 in ms", value=statistics.quantiles(waits, n=100)[98], at_most=20)


async def b7_scans(base: Path, report: Report, files: int, rounds: int) -> None:
    """An unchanged scan beside a bare walk and find; phase 1 of a start as a part of it."""
    with a_folder(base) as folder:
        root, memory = folder / "root", MemoryTree()
        loads.make_tree(root, files)
        for backend in ("polling", "inotify"):
            async with watching(root, folder / "state", memory=memory, backend=backend) as (watcher, _):
                await watcher.sync(deadline_s=600)
                rows: dict[str, list[float]] = {"scan": [], "bare": [], "find": []}
                for _ in range(max(rounds, 5)):
                    rows["bare"].append(_cpu_of(lambda: loads.bare_walk(root)))
                    before = used_cpu_s_fine()
                    await watcher.scan_now(ONE)
                    rows["scan"].append(used_cpu_s_fine() - before)
                    began = time.perf_counter()
                    subprocess.run(["find", str(root), *FIND], stdout=subprocess.DEVNULL, check=True)
                    rows["find"].append(time.perf_counter() - began)
                best = {name: min(values) for name, values in rows.items()}
                report.row(f"B7 unchanged scan, {backend}", us_a_file=best["scan"] / files * 1e6, find=best["find"])
                report.bar(
                    f"B7 unchanged scan by a bare walk, {backend}", value=best["scan"] / best["bare"], at_most=1.25
                )
                whole_s = statistics.median(rows["scan"])
        report.bar("B7 speed against find -printf", value=best["find"] / best["scan"], at_least=0.7)
        _age(memory)
        phase_one = [await _phase_one_s(root, folder / "state", memory) for _ in range(3)]
        report.bar("B7 phase 1 by a whole scan", value=statistics.median(phase_one) / whole_s, at_most=0.15)


def used_cpu_s_fine() -> float:
    return time.process_time()


def _cpu_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _age(memory: MemoryTree) -> None:
    """As if the last scan were a minute younger than all it saw: stamps are believed."""
    stack = [memory.tops[ONE]]
    while stack:
        node = stack.pop()
        stack += node.dirs.values()
        if node.known is not None:
            object.__setattr__(node.known, "scanned_ms", node.known.scanned_ms + 60_000)


async def _phase_one_s(root: Path, state: Path, memory: MemoryTree) -> float:
    async with watching(root, state, memory=memory, backend="inotify") as (watcher, _):
        while not any(job.kind in {"stamps", "attach"} for job in watcher._scans._jobs):
            await asyncio.sleep(0)
        began = time.process_time()
        while any(job.kind in {"stamps", "attach", "quick"} for job in watcher._scans._jobs):
            await asyncio.sleep(0.001)
        return time.process_time() - began


async def growth(base: Path, report: Report, sizes: list[int]) -> None:
    """Cost per file of first and unchanged scans as the tree grows; memory of the scan itself beside what is known."""
    costs: dict[int, tuple[float, float]] = {}
    for files in sizes:
        with a_folder(base) as folder:
            loads.make_tree(folder / "root", files)
            memory = MemoryTree()
            async with watching(folder / "root", folder / "state", memory=memory, backend="inotify") as (watcher, _):
                before = time.process_time()
                await watcher.sync(deadline_s=3600)
                first = time.process_time() - before
                gc.freeze()  # what is known lies on disk in truth: no collection walks it
                known_kib, unchanged = rss_kib(), []
                for _ in range(2):
                    before = time.process_time()
                    await watcher.scan_now(ONE)
                    unchanged.append(time.process_time() - before)
                costs[files] = (first / files * 1e6, min(unchanged) / files * 1e6)
                report.row(
                    f"growth, {files} files", first_us=costs[files][0], unchanged_us=costs[files][1],
                    mib_more_while_scanning=(rss_kib() - known_kib) / 1024,
                )  # fmt: skip
    small, large = min(costs), max(costs)
    if small < large:
        report.bar(f"growth of cost a file, {small} to {large}", value=costs[large][1] / costs[small][1], at_most=1.15)


async def idle(base: Path, report: Report, files: int, seconds: float) -> None:
    """CPU, wake-ups and memory of a watcher to which nothing happens."""
    with a_folder(base) as folder:
        loads.make_tree(folder / "root", files)
        async with watching(folder / "root", folder / "state", backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=3600)
            await asyncio.sleep(5)
            before, woken = used_cpu_s(), _switches()
            await asyncio.sleep(seconds)
            report.row(
                f"idle over {files} files", cpu_percent=(used_cpu_s() - before) / seconds * 100,
                wake_ups_a_minute=(_switches() - woken) / seconds * 60, rss_mib=rss_kib() / 1024,
            )  # fmt: skip


def _switches() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


async def measure(options, report: Report, base: Path) -> None:
    only = set(options.only.split(",")) if options.only else {"B1", "B2", "B3", "B6", "B7", "growth"}
    if "B1" in only:
        await b1_bursts(base, report)
    if "B2" in only:
        b2_parsing(report, base)
        await b2_flood(base, report)
    if "B3" in only:
        await b3_setup(base, report, options.dirs)
    if "B6" in only:
        await b6_latency(base, report)
    if "B7" in only:
        await b7_scans(base, report, options.files, options.rounds)
    if "growth" in only:
        await growth(base, report, [int(size) for size in options.growth.split(",")])
    if options.idle:
        await idle(base, report, options.files, options.idle)


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--dirs", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    parser.add_argument("--only", default="", help="bars to measure, as in B1,B7,growth")
    parser.add_argument("--growth", default="10000,100000", help="numbers of files; 1000000 needs 4 GiB and minutes")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds to sit still over --files files")
    options = parser.parse_args(argv)
    report = Report("watch", options.out)
    asyncio.run(measure(options, report, options.folder or Path(tempfile.gettempdir())))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
