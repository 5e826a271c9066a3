"""Watching and scanning: the bars B1 to B7 and B10, each with its peer in the same run (B2, B3, B6: watch_events.py; B7, B10,
growth: watch_scans.py).

    python -m bench.watch_bench [--files 20000] [--folder /dev/shm] [--only B1,B7] [--growth 10000,100000] [--idle SECONDS]

What is known is kept in memory by the tests' own tree, so the catalog's cost is not in it. CPU where a bar is about work, wall
where it is about waiting. Peers that are not installed are left out and named. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from watch_world import differences, may_fanotify, watching

from bench import watch_events as events
from bench import watch_loads as loads
from bench import watch_scans as scans
from bench.common import Report, arguments
from bench.watch_events import a_folder, rss_kib, used_cpu_s

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


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
    only = set(options.only.split(",")) if options.only else {"B1", "B2", "B3", "B6", "B7", "B10", "growth"}
    if "B1" in only:
        await b1_bursts(base, report)
    if "B2" in only:
        events.b2_parsing(report, base)
        await events.b2_flood(base, report)
    if "B3" in only:
        await events.b3_setup(base, report, options.dirs, max(options.rounds, 3))
    if "B6" in only:
        await events.b6_latency(base, report)
    if "B7" in only:
        await scans.b7_scans(base, report, options.files, options.rounds)
    if "cold" in only:
        await scans.cold(options.disk, report, options.files)
    if "B10" in only:
        await scans.b10_loop_lag(base, report)
    if "growth" in only:
        await scans.growth(base, report, [int(size) for size in options.growth.split(",")])
    if options.idle:
        await idle(base, report, options.files, options.idle)


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--dirs", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm") if Path("/dev/shm").is_dir() else None)
    parser.add_argument(
        "--disk", type=Path, default=Path(tempfile.gettempdir()), help="for `cold`: a folder on a real disk"
    )
    parser.add_argument("--only", default="", help="bars to measure, as in B1,B7,growth; cold: as root")
    parser.add_argument("--growth", default="10000,100000", help="numbers of files; 1000000 needs 2 GiB and minutes")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds to sit still over --files files")
    options = parser.parse_args(argv)
    report = Report("watch", options.out)
    asyncio.run(measure(options, report, options.folder or Path(tempfile.gettempdir())))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
