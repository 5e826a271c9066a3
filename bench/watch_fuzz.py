"""B4: random file operations against the real watcher; after quiet what it knows equals the tree, always.

    python -m bench.watch_fuzz --sequences 1000 --ops 1500 --seed 0 [--jobs 2] [--only paced --only killed]
    python -m bench.watch_fuzz --repeat paced:17,killed:23       the sequences that an earlier run named

The watcher runs in a process of its own, so that operations and looks truly cross. Sequence n has the seed n and takes the
variants in turn (see VARIANTS in watch_fuzz_child). Every sequence is checked four times: `sync`, then the memory against
a walk of the disk, and the books of the watches against the kernel's. A divergence is told with what repeats it.
Needs no privilege but for two variants: a kernel queue of 50 events (its limit is written for the one moment in which the
descriptor is made, under a lock, and put back) and fanotify; where they cannot be had they are left out, and that is told.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path

from bench.common import Report, arguments
from bench.watch_fuzz_child import VARIANTS, Told, Variant, WatcherProcess, WatcherSilent
from bench.watch_fuzz_faults import can_shrink_queue

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from watch_world import FileOps, MemoryTree, may_fanotify

_CHECKS = 4
_FORK = multiprocessing.get_context("fork")
#: Memory disks have cheap directories, so more of the time goes into races; one in five runs on the disk of the temporary folder.
_MEMORY_DISK = Path("/dev/shm")
_ON_DISK_EVERY = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """One sequence. `lines`: differences, with the number of the check; empty if there were none."""

    variant: str
    seed: int
    ops: int
    took_s: float
    told: Told
    kills: int
    lines: list[str]


def run_sequence(name: str, seed: int, ops: int) -> Outcome:
    """One sequence of *ops* operations in a new folder, checked four times."""
    where = _MEMORY_DISK if seed % _ON_DISK_EVERY and _MEMORY_DISK.is_dir() else None
    base = Path(tempfile.mkdtemp(prefix="watch-fuzz-", dir=where))
    began = time.monotonic()
    try:
        lines, child = _play(VARIANTS[name], base, seed, ops)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return Outcome(name, seed, ops, time.monotonic() - began, child.told, child.kills, lines[:20])


def _play(variant: Variant, base: Path, seed: int, ops: int) -> tuple[list[str], WatcherProcess]:
    for folder in ("root", "state"):
        (base / folder).mkdir()
    files = FileOps(base / "root", base / "outside", seed)
    files.run(ops // 10)
    (base / "root" / "never empty").touch()
    child = WatcherProcess(variant, base, MemoryTree(), seed)
    lines: list[str] = []
    try:
        for check in range(_CHECKS):
            _perform(variant, child, files, ops // _CHECKS)
            lines += [f"check {check}: {line}" for line in child.check(files.root)]
            if lines:
                break
    except WatcherSilent as silent:
        lines.append(str(silent))
    finally:
        child.stop()
    return lines, child


def _perform(variant: Variant, child: WatcherProcess, files: FileOps, steps: int) -> None:
    """Operations at the pace of the variant, with what it does to the watcher in between."""
    chance = files.rng
    for n in range(steps):
        files.step()
        if variant.pauses_s and n % 8 == 0:
            time.sleep(chance.choice(variant.pauses_s))
        if variant.torments and n and n % max(1, steps // 3) == 0:
            child.torment(chance.choice(variant.torments), chance)


# -- many of them ------------------------------------------------------------------------------------------------------


def sequences(wanted: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """(variant, seed) of every sequence that was asked for."""
    if wanted.repeat:
        for text in wanted.repeat.split(","):
            name, _, seed = text.partition(":")
            yield name, int(seed)
        return
    names = [name for name in wanted.only or VARIANTS if _may_run(VARIANTS[name])]
    for n in range(wanted.sequences):
        yield names[n % len(names)], wanted.seed + n


def _may_run(variant: Variant) -> bool:
    return (not variant.queue or can_shrink_queue()) and (variant.backend != "fanotify" or may_fanotify())


def outcomes(wanted_runs: list[tuple[str, int]], *, ops: int, jobs: int) -> Iterator[Outcome]:
    """All of them, *jobs* at once, in the order in which they end. A process that dies is an outcome too."""
    waiting = list(reversed(wanted_runs))
    running: dict[object, tuple[multiprocessing.process.BaseProcess, str, int]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            name, seed = waiting.pop()
            ours, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_report_sequence, args=(theirs, name, seed, ops))
            process.start()
            theirs.close()
            running[ours] = (process, name, seed)
        for ready in wait(list(running)):  # type: ignore[arg-type]
            process, name, seed = running.pop(ready)
            try:
                yield ready.recv()  # type: ignore[union-attr]
            except EOFError:
                yield Outcome(
                    name, seed, ops, 0.0, Told(), 0, ["the sequence's own process died: see its traceback above"]
                )
            process.join()


def _report_sequence(pipe: object, name: str, seed: int, ops: int) -> None:
    pipe.send(run_sequence(name, seed, ops))  # type: ignore[attr-defined]


def main() -> int:
    """Run what was asked for, write each outcome down, judge the whole."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=len(VARIANTS) * 2)
    parser.add_argument("--ops", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0, help="of the first sequence; the next has the next")
    parser.add_argument("--jobs", type=int, default=1, help="sequences at once")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="only this variant (may be repeated)")
    parser.add_argument("--repeat", default="", help="VARIANT:SEED,... of an earlier run")
    parser.add_argument("--log", type=Path, default=None, help="append each outcome as a line of JSON")
    parser.add_argument(
        "--until", type=float, default=0.0, help="begin no sequence after so many seconds (0: no limit)"
    )
    wanted = parser.parse_args()
    report = Report("watch_fuzz", wanted.out)
    began = time.monotonic()
    done: list[Outcome] = []
    for name in VARIANTS.keys() - {name for name, _ in sequences(wanted)}:
        print(f"left out: {name} ({VARIANTS[name].needs or 'not asked for'})", flush=True)
    wanted_runs = list(sequences(wanted))
    for outcome in outcomes(wanted_runs, ops=wanted.ops, jobs=wanted.jobs):
        done.append(outcome)
        _tell(outcome, len(done), len(wanted_runs), began, wanted.log)
        if wanted.until and time.monotonic() - began > wanted.until:
            break  # what still runs ends with us
    return _judge(report, done, time.monotonic() - began, len(wanted_runs))


def _tell(outcome: Outcome, count: int, total: int, began: float, log: Path | None) -> None:
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(outcome), "at_s": round(time.monotonic() - began, 1)}) + "\n")
    if outcome.lines:
        print(f"DIVERGED  --repeat {outcome.variant}:{outcome.seed}", *outcome.lines, sep="\n    ", flush=True)
    elif count % 20 == 0 or count == total:
        print(f"{count} of {total} sequences, {time.monotonic() - began:.0f} s", flush=True)


def _judge(report: Report, done: list[Outcome], took_s: float, wanted: int) -> int:
    diverged = [outcome for outcome in done if outcome.lines]
    for name in VARIANTS:
        mine = [outcome for outcome in done if outcome.variant == name]
        if mine:
            bad = Counter(outcome.variant for outcome in diverged)[name]
            report.row(
                f"{name}: {VARIANTS[name].purpose}"[:52],
                sequences=len(mine), diverged=bad, kills=sum(o.kills for o in mine),
                **asdict(sum((o.told for o in mine), Told())),
            )  # fmt: skip
    ops = sum(outcome.ops for outcome in done)
    report.row("all", sequences=len(done), ops=ops, ops_per_s=ops / took_s, took_s=took_s)
    report.bar("sequences run of those wanted", value=len(done), at_least=wanted)
    report.bar("sequences that diverged", value=len(diverged), at_most=0)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
