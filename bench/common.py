"""What the benchmark commands share: interleaved rounds, CPU time of process trees, bars, one JSON line of results.

report = Report("queue", arguments)
report.row("enqueue, 50 callers", per_s=31_000)
report.bar("enqueue against bare sqlite3", value=0.71, at_least=0.5)
sys.exit(report.finish())            # 0 if every bar was met
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that something took: on the wall, and of CPU (this process and the children it has reaped)."""

    wall_s: float
    cpu_s: float


def measure(function: Callable[[], object]) -> Cost:
    """Run *function* once."""
    began, cpu = time.perf_counter(), _own_cpu_s()
    function()
    return Cost(time.perf_counter() - began, _own_cpu_s() - cpu)


def interleaved(rounds: int, candidates: Mapping[str, Callable[[], object]]) -> dict[str, list[Cost]]:
    """Costs of each candidate in each round. All take turns, so that a noisy minute hits all of them."""
    costs: dict[str, list[Cost]] = {name: [] for name in candidates}
    for number in range(rounds):
        order = list(candidates)
        for name in order if number % 2 == 0 else reversed(order):
            costs[name].append(measure(candidates[name]))
    return costs


def best_wall_s(costs: list[Cost]) -> float:
    """The least disturbed round."""
    return min(cost.wall_s for cost in costs)


def median_ratio(ours: list[Cost], theirs: list[Cost]) -> float:
    """Median over rounds of their wall time by ours: how many times as fast we are."""
    return statistics.median(b.wall_s / a.wall_s for a, b in zip(ours, theirs, strict=True))


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all that descend from it, living or reaped; 0 once it is gone."""
    total = 0.0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rsplit(")", 1)[1].split()
        total += sum(int(value) for value in fields[11:15]) * _TICK_S
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(tree_cpu_s(int(child)) for child in (task / "children").read_text().split())
    except OSError:
        return total
    return total


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with --out and --rounds; add your own to it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=None, help="append the results as one JSON line to this file")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


@dataclass
class Report:
    """Rows and bars of one benchmark."""

    name: str
    out: Path | None = None
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    bars: dict[str, dict[str, float | bool]] = field(default_factory=dict)

    def row(self, name: str, **values: float) -> None:
        """Print and keep measured values."""
        self.rows[name] = {key: _rounded(value) for key, value in values.items()}
        print(f"{name:52}", "  ".join(f"{key} {value:,}" for key, value in self.rows[name].items()), flush=True)

    def bar(self, name: str, *, value: float, at_least: float | None = None, at_most: float | None = None) -> None:
        """Print and keep a value that must not be below *at_least* or above *at_most*."""
        is_met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        limit, sign = (at_least, ">=") if at_least is not None else (at_most, "<=")
        self.bars[name] = {"value": _rounded(value), "bar": limit or 0.0, "met": is_met}
        print(f"{'ok  ' if is_met else 'MISS'} {name:60} {_rounded(value):>10,} {sign} {limit:,}", flush=True)

    def finish(self) -> int:
        """Print all as one JSON object, append it to the file; 0 if every bar was met, else 1."""
        line = json.dumps({
            "bench": self.name, "rows": self.rows, "bars": self.bars, "cpus": os.cpu_count(),
            "python": platform.python_version(), "machine": platform.machine(), "load": round(os.getloadavg()[0], 2),
        })  # fmt: skip
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        print(line)
        return 0 if all(bar["met"] for bar in self.bars.values()) else 1


def _rounded(value: float) -> float:
    if isinstance(value, int) or value == 0:
        return value
    return round(value, 3) if abs(value) < 1000 else float(round(value))
