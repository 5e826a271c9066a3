"""The event side of watching: bars B2 (events a second, flood), B3 (many watches), B6 (from a save to the sink).

Run by watch_bench. What is known is kept in memory by the tests' own tree, and frozen: in truth it lies on disk, and no garbage
collection walks it. Where a machine's own slowness would be measured, a bare thing that waits as often is measured beside.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from watch_world import ONE, MemoryTree, differences, watching

from bench import watch_loads as loads
from bench.common import Report, tree_cpu_s
from msearchd.domain.asset import Root
from msearchd.watch.changes import FileSeen, TreeMoved
from msearchd.watch.settler import Bounds, Settler
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources.inotify import InotifySource

SETTLE_S = 0.2
_PARSED = 500_000
_MOVED_FILES = 30_000


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


def exact_cpu_s(watcher) -> float:
    """The same in nanoseconds' steps: of this process and the reader."""
    pid = watcher._sources._local._drain.pid
    return time.process_time() + int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


class CountedTree(MemoryTree):
    """Counts the files of a whole root once: the catalog knows that number without counting."""

    count: int | None = None

    async def count_files(self, root, path=b""):
        if path:
            return await super().count_files(root, path)
        if self.count is None:
            self.count = await super().count_files(root)
        return self.count


def age(memory: MemoryTree) -> None:
    """As if the last scan were a minute younger than all it saw: stamps are believed."""
    stack = [memory.tops[ONE]]
    while stack:
        node = stack.pop()
        stack += node.dirs.values()
        if node.known is not None:
            object.__setattr__(node.known, "scanned_ms", node.known.scanned_ms + 60_000)


# -- B2 ----------------------------------------------------------------------------------------------------------------


def b2_parsing(report: Report, state: Path) -> None:
    """Events to hints to settled places, offline: bounded as always, and with room for all of 50,000 names."""
    buffers = [
        b"".join(
            abi.HEADER.pack((k * 1000 + m // 2) % 50_000 // 980 + 1, abi.CLOSE_WRITE if m % 2 else abi.CREATE, 0, 16)
            + (b"f%09d" % ((k * 1000 + m // 2) % 50_000)).ljust(16, b"\0")
            for m in range(2000)
        )
        for k in range(_PARSED // 2000)
    ]
    best = {}
    for name, bounds in (("", Bounds()), (", nothing collapses", Bounds(max_pending=100_000, max_per_dir=100_000))):
        best[name] = max(_parsed_a_second(buffers, state, bounds) for _ in range(3))
    report.bar("B2 events parsed and coalesced a second", value=best[""], at_least=5e5)
    report.row("B2 the same with 50,000 names that all wait by themselves", events_a_second=best[", nothing collapses"])


def _parsed_a_second(buffers: list[bytes], state: Path, bounds: Bounds) -> float:
    source = InotifySource(notify=lambda: None, state_dir=state)
    source._tree.add_root(ONE)
    for n in range(52):
        source._tree.put((ONE, b"d%d" % n if n else b""), lambda n=n: n + 1, is_elsewhere=lambda _: False)
    settler = Settler(bounds=bounds)
    began = time.process_time()
    for buffer in buffers:
        source._on_events(buffer)
        settler.observe_all(source.hints(), now=1.0)
    return _PARSED / (time.process_time() - began)


async def b2_flood(base: Path, report: Report, files: int = 120_000) -> None:
    """Beside two threads that hold the interpreter: 60,000 events a second for four seconds; then as fast as it goes."""
    for name, rate in (("60,000 a second", 30_000), ("as fast as it goes", 0)):
        with a_folder(base) as folder:
            for n in range(40):
                (folder / "root" / str(n)).mkdir()
            async with watching(folder / "root", folder / "state", backend="inotify") as (watcher, memory):
                await watcher.sync(deadline_s=60)
                with _two_busy_threads():
                    took_s = await asyncio.to_thread(loads.flood, folder / "root", files=files, files_a_second=rate)
                await watcher.sync(deadline_s=300)
                overflows, lost = watcher.snapshot().overflows, len(differences(memory, folder / "root"))
            report.row(f"B2 flood, {name}", events_a_second=2 * files / took_s, overflows=overflows)
            report.bar(f"B2 lost in the flood, {name}", value=lost, at_most=0)
            if rate:
                report.bar("B2 events a second that the flood reached", value=2 * files / took_s, at_least=50_000)
                report.bar("B2 overflows in the flood", value=overflows, at_most=0)


@contextlib.contextmanager
def _two_busy_threads():
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=spin) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# -- B3 ----------------------------------------------------------------------------------------------------------------


async def b3_setup(base: Path, report: Report, dirs: int, rounds: int) -> None:
    """Watches on many known folders: time, memory, renames of folders, a tree that moves, cost of an event."""
    with a_folder(base) as folder:
        root = folder / "root"
        loads.make_dirs(root, dirs)
        memory = CountedTree()
        async with watching(root, folder / "state", memory=memory, backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=300)
        age(memory)
        gc.collect()
        gc.freeze()
        await _setup_rounds(root, folder / "state", report, memory, dirs, rounds)
        kib = float(loads.in_python("bench.watch_events", "memory", root, folder / "state"))
        report.bar("B3 KiB of memory a folder", value=kib, at_most=0.3)
        async with watching(root, folder / "state", memory=memory, backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=300)
            await _renamed_folders(root, report, watcher)
            many = await _event_cost_s(watcher, root / "one")
            await _moved_tree(root, report, watcher, memory)
    with a_folder(base) as folder:
        loads.make_dirs(folder / "root", 1000)
        async with watching(folder / "root", folder / "state", backend="inotify") as (watcher, _):
            await watcher.sync(deadline_s=60)
            few = await _event_cost_s(watcher, folder / "root" / "one")
    report.bar(f"B3 cost of an event at {dirs} folders by 1000", value=many / few, at_most=1.5)


async def _setup_rounds(root: Path, state: Path, report: Report, memory: MemoryTree, dirs: int, rounds: int) -> None:
    ours, own_cpu, peer, raw, cpu = [], [], [], [], []
    for _ in range(rounds):
        raw.append(loads.raw_setup_s(root))
        before = sum(os.times()[2:4])
        seconds = loads.inotifywait_setup_s(root)
        peer_cpu_s = sum(os.times()[2:4]) - before
        began, began_cpu = time.perf_counter(), time.process_time()
        async with watching(root, state, memory=memory, backend="inotify") as (watcher, _):
            while watcher._sources._local is None or watcher._sources._local._tree.watched_count < dirs:
                await asyncio.sleep(0.002)
            ours.append(time.perf_counter() - began)
            own_cpu.append(time.process_time() - began_cpu)
        if seconds is not None:
            peer.append(seconds / ours[-1])
            cpu.append(peer_cpu_s / own_cpu[-1])
    report.row("B3 set-up", dirs=dirs, seconds=min(ours), cpu_s=min(own_cpu), raw_s=min(raw))
    report.bar("B3 seconds of set-up for 50,000 folders", value=min(ours) * 50_000 / dirs, at_most=2.0)
    if peer:
        report.bar("B3 speed against inotifywait -r", value=statistics.median(peer), at_least=0.8)
        report.row("B3 the same in CPU", inotifywait_by_ours=statistics.median(cpu))


async def _renamed_folders(root: Path, report: Report, watcher) -> None:
    names = sorted(root.glob("*/*/*"))[:300]
    costs = []
    for number in range(4):
        before, renaming = exact_cpu_s(watcher), time.process_time()
        for name in names:
            os.rename(f"{name}{'-' * number}", f"{name}{'-' * (number + 1)}")
        renaming = time.process_time() - renaming
        await watcher.sync(deadline_s=60)
        costs.append(exact_cpu_s(watcher) - before - renaming)
    report.bar("B3 CPU s of 300 renamed folders", value=statistics.median(costs), at_most=0.05)


async def _moved_tree(root: Path, report: Report, watcher, memory: MemoryTree) -> None:
    """From the rename to the sink, and until all of it was looked at; a move is no new file."""
    loads.make_tree(root / "tree", _MOVED_FILES)
    await watcher.sync(deadline_s=300)
    waits, cpu, whole = [], [], []
    memory.log.clear()
    for number in range(5):
        before, began = exact_cpu_s(watcher), time.perf_counter()
        (root / f"tree{'-' * number}").rename(root / f"tree{'-' * (number + 1)}")
        async with asyncio.timeout(60):
            while len(memory.of(TreeMoved)) <= number:
                await asyncio.sleep(0.001)
        waits.append((time.perf_counter() - began) * 1000)
        cpu.append((exact_cpu_s(watcher) - before) * 1000)
        await watcher.sync(deadline_s=60)
        whole.append((exact_cpu_s(watcher) - before) * 1000)
    rest_ms = watcher._settler._delays.tree_s * 1000
    report.row(
        f"B3 mv of {_MOVED_FILES} files", whole_cpu_ms=statistics.median(whole), to_sink_ms=statistics.median(waits)
    )
    report.bar("B3 ms from mv to the sink beyond its rest", value=statistics.median(waits) - rest_ms, at_most=50)
    report.bar("B3 CPU ms of mv until the sink has it", value=statistics.median(cpu), at_most=50)
    report.bar("B3 files read again after mv", value=len(memory.of(FileSeen)), at_most=0)


async def _event_cost_s(watcher, folder: Path) -> float:
    folder.mkdir()
    costs = []
    for _ in range(5):
        await watcher.sync(deadline_s=60)
        before = exact_cpu_s(watcher)
        for n in range(1000):
            (folder / f"{n}").write_bytes(b"x")
            if n % 50 == 0:
                await asyncio.sleep(0)
        await watcher.sync(deadline_s=60)
        costs.append(exact_cpu_s(watcher) - before)
    return statistics.median(costs)


async def _memory_kib(root: Path, state: Path) -> float:
    """KiB of resident memory a folder, of watches and their books alone, in a process that held nothing before."""
    source = InotifySource(notify=lambda: None, state_dir=state)
    await source.add_root(Root(ONE, os.fsencode(root)))
    folders = [Path(at).relative_to(root).as_posix().encode() for at, _, _ in os.walk(root)]
    gc.collect()
    before = rss_kib()
    for folder in folders:
        path = b"" if folder == b"." else folder
        fd = os.open(os.fsencode(root) + b"/" + path, os.O_RDONLY | os.O_DIRECTORY)
        source.coverage.enter(ONE, path, fd)
        os.close(fd)
    used = rss_kib() - before
    assert source.health().watched_dirs == len(folders)
    await source.close()
    return used / len(folders)


# -- B6 ----------------------------------------------------------------------------------------------------------------


async def b6_latency(base: Path, report: Report, saves: int = 150) -> None:
    """A save until the sink has it, less the rest time; beside it what a bare loop needs for as many waits."""
    with a_folder(base) as folder, _echo() as echo:
        root = folder / "root"
        async with watching(root, folder / "state", backend="inotify", settle_closed_s=SETTLE_S) as (watcher, memory):
            await watcher.sync(deadline_s=20)
            arrived, real = asyncio.Event(), memory.apply

            async def apply(changes) -> None:
                await real(changes)
                if any(isinstance(change, FileSeen) for change in changes):
                    arrived.set()

            memory.apply = apply
            waits, bare, sleeps, syncs = [], [], [], []
            for n in range(saves):
                arrived.clear()
                began = time.perf_counter()
                (root / f"{n}.txt").write_bytes(b"x")
                await arrived.wait()
                waits.append((time.perf_counter() - began - SETTLE_S) * 1000)
                began = time.perf_counter()
                await echo()
                slept = time.perf_counter()
                await asyncio.sleep(SETTLE_S)
                sleeps.append((time.perf_counter() - slept - SETTLE_S) * 1000)
                await asyncio.to_thread(os.lstat, root)
                bare.append((time.perf_counter() - began - SETTLE_S) * 1000)
            for _ in range(200):
                began = time.perf_counter()
                await watcher.sync(deadline_s=20)
                syncs.append((time.perf_counter() - began) * 1e6)
    ours, theirs, sleep = (statistics.quantiles(rows, n=100) for rows in (waits, bare, sleeps))
    report.row(
        "B6 save to sink beyond the rest", p50_ms=ours[49], p90_ms=ours[89], sync_p50_us=statistics.median(syncs)
    )
    report.row(
        "B6 a bare loop: another process, a sleep, a thread", p50_ms=theirs[49], p90_ms=theirs[89], p99_ms=theirs[98]
    )
    report.row("B6 a bare loop: the sleep alone", p50_ms=sleep[49], p90_ms=sleep[89], p99_ms=sleep[98])
    report.bar("B6 save to sink, p99 in ms", value=ours[98], at_most=20)
    report.bar("B6 p90 in ms beyond that of the bare loop", value=ours[89] - theirs[89], at_most=5)


@contextlib.contextmanager
def _echo():
    """A process that says again what it is told: one hop there and one back, as the reader of events needs."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    assert child.stdout is not None
    out = child.stdout.fileno()

    async def echo() -> None:
        heard = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(out, lambda: (os.read(out, 1), heard.set()))
        child.stdin.write(b"x")
        await heard.wait()
        loop.remove_reader(out)

    try:
        yield echo
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


if __name__ == "__main__":
    print(asyncio.run(_memory_kib(Path(sys.argv[2]), Path(sys.argv[3]))))
