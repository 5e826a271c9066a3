"""What an idle daemon costs: CPU, wake-ups and memory of the daemon and all its children, over a tree of many files.

    python -m bench.idle_bench [--files 100000] [--minutes 10] [--settle-s 60] [--indexed]

Indexes a hundred files, then pauses and adds the rest of the tree: known, watched and compared as any other, their jobs held
in the queue (reading a hundred thousand files is another bench). With --indexed nothing is held: every file goes through the
text model into the index before the clock starts, which takes tens of minutes. Waits until that is done and the workers have
gone, then looks at the process tree at both ends of the time: CPU from /proc/PID/stat, wake-ups as voluntary context switches of
every thread (each is one sleep that ended), resident memory. The kernel's own unit of CPU is 10 ms.
Bars: CPU at most 0.1 % of a core; at most 5 wake-ups a second for everything (one probe, one look at the roots each 3 s,
the loop's own clock); memory does not grow by more than 2 MB.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from daemon_harness import DaemonHome, daemon_home

from bench.common import Report, arguments, tree_cpu_s

_FILES_A_FOLDER = 200


@dataclass(frozen=True, slots=True)
class Look:
    """The process tree at one moment."""

    cpu_s: float
    wakeups: int
    resident_bytes: int
    processes: int
    at_s: float


def tree_of(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            for child in (task / "children").read_text().split():
                found += tree_of(int(child))
        except OSError:
            continue
    return found


def look(home: DaemonHome) -> Look:
    """CPU, wake-ups and memory now."""
    assert home.process is not None
    pids = tree_of(home.process.pid)
    wakeups = resident = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            wakeups += _number((task / "status").read_text(), "voluntary_ctxt_switches:")
        resident += _number(Path(f"/proc/{pid}/status").read_text(), "VmRSS:") * 1024
    return Look(tree_cpu_s(home.process.pid), wakeups, resident, len(pids), time.monotonic())


def _number(text: str, name: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), 0)


def fill(top: Path, files: int) -> None:
    """Small text files, two hundred in a folder."""
    for start in range(0, files, _FILES_A_FOLDER):
        folder = top / f"{start // 10_000}" / f"{start}"
        folder.mkdir(parents=True)
        for number in range(start, min(files, start + _FILES_A_FOLDER)):
            name = f"{number}.txt"
            (folder / name).write_bytes(b"%d" % number)


def done_of(home: DaemonHome, *, indexed: bool) -> int:
    """How many files the daemon knows, or with *indexed* how many it has indexed."""
    files = [folder["files"] for folder in home.status()["folders"]]
    return sum(counts["indexed"] if indexed else sum(counts.values()) for counts in files)


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--settle-s", type=float, default=90.0)
    parser.add_argument("--indexed", action="store_true")
    parser.add_argument("--patience-minutes", type=int, default=60)
    options = parser.parse_args()
    report = Report("idle", options.out)
    with daemon_home() as home:
        fill(home.files / "first", 100)
        home.start()
        home.add(home.files)
        home.sync()
        if not options.indexed:
            home.api.post("/pause", {"reason": "bench"})
        began = time.monotonic()
        fill(home.files / "rest", options.files - 100)
        while done_of(home, indexed=options.indexed) < options.files:
            if time.monotonic() - began > options.patience_minutes * 60:
                sys.exit(f"the tree was not known within {options.patience_minutes} minutes")
            time.sleep(5)
        report.row("until everything was known", seconds=time.monotonic() - began)
        time.sleep(options.settle_s)  # flush, checkpoint, the first look at the disk
        first = look(home)
        time.sleep(options.minutes * 60)
        last = look(home)
        span_s = last.at_s - first.at_s
        report.row("idle", minutes=span_s / 60, processes=float(last.processes), files=float(options.files))
        report.bar("CPU, per cent of a core", value=100 * (last.cpu_s - first.cpu_s) / span_s, at_most=0.1)
        report.bar("wake-ups a second, all threads", value=(last.wakeups - first.wakeups) / span_s, at_most=5)
        report.row("memory", mb=last.resident_bytes / 1e6)
        report.bar("growth of memory, MB", value=(last.resident_bytes - first.resident_bytes) / 1e6, at_most=2)
        home.stop()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
