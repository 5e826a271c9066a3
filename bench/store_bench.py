"""The vector store through its process and wire: ingest, recall, search cost, and how quiet it is while it optimizes.

    python -m bench.store_bench [--points 100000] [--dim 384] [--folder DIR]

Data: clustered vectors (48 intrinsic dimensions and noise, normalised, seeded); recall ranks settings, it is no quality
claim for real embeddings. Peer in the same run: numpy's exact scan with one thread. Exit status 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from msearchd.aio.child import Limits
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import ModelKey, Point, PointPayload, Space, SpaceName, Vectors
from msearchd.settings.model import StoreSettings
from msearchd.store.client import StoreProcess
from msearchd.store.vector_store import PointFilter, VectorSearch

QUESTIONS = 200
SHARES = {0.01: 1, 0.10: 2, 0.25: 3}  # share of the points that lie in the folder of this id
BATCH = 256
PER_CONTENT = 8


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """float32[count, dim], normalised."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((48, dim)).astype(np.float32)
    centres = rng.standard_normal((max(16, count // 500), 48)).astype(np.float32)
    rows = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 20_000):
        n = min(20_000, count - start)
        inner = centres[rng.integers(0, len(centres), n)] + 0.6 * rng.standard_normal((n, 48)).astype(np.float32)
        rows[start : start + n] = inner @ basis + 0.5 * rng.standard_normal((n, dim)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def folders_of(count: int, seed: int) -> np.ndarray:
    """bool[count, 3]: whether a point lies in the folder of each share."""
    return np.random.default_rng(seed).random((count, 1)) < np.array(list(SHARES))


def points(start: int, end: int, inside: np.ndarray) -> list[Point]:
    return [
        Point(
            uuid.UUID(int=n + 1),
            PointPayload(
                uuid.UUID(int=n // PER_CONTENT + 1), SegmentKind.BODY, n % PER_CONTENT,
                (100, *(folder for place, folder in enumerate(SHARES.values()) if inside[n, place])),
                "pdf", "document", n,
            ),
        )
        for n in range(start, end)
    ]  # fmt: skip


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


class Waits:
    """Loop lag (a 5 ms sleep that came late) and search waits, while something else runs."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.searches: list[float] = []

    async def lag(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            self.lags.append((time.perf_counter() - started - 0.005) * 1000)

    async def search(self, store: StoreProcess, question: VectorSearch) -> None:
        while True:
            started = time.perf_counter()
            await store.search([question])
            self.searches.append((time.perf_counter() - started) * 1000)
            await asyncio.sleep(0.02)


def quantiles(values: list[float]) -> tuple[float, float, float]:
    ordered = sorted(values)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1]


class Report:
    def __init__(self) -> None:
        self.missed = 0

    def row(
        self, name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        bar = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}" if at_most is not None else ""
        met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        self.missed += not met
        print(
            f"{name:<58} {value:>10.4g} {unit:<10} {bar:<10} {'' if not bar else 'ok' if met else 'MISSED'}", flush=True
        )


async def ingest(
    store: StoreProcess, space: Space, rows: np.ndarray, inside: np.ndarray, start: int, end: int
) -> float:
    """Wall seconds; making the points is not counted."""
    spent = 0.0
    for at in range(start, end, BATCH):
        last = min(at + BATCH, end)
        batch, vectors = points(at, last, inside), Vectors(rows[at:last].tobytes(), last - at, space.dim)
        started = time.perf_counter()
        await store.upsert(space.name, batch, vectors)
        spent += time.perf_counter() - started
    return spent


def exact_top(rows: np.ndarray, question: np.ndarray, among: np.ndarray | None) -> set[int]:
    scores = rows @ question if among is None else rows[among] @ question
    top = np.argpartition(-scores, 10)[:10]
    return {int(n) for n in (top if among is None else among[top])}


async def recall(store: StoreProcess, space: Space, rows: np.ndarray, questions: np.ndarray, among: np.ndarray | None,
                 conditions: PointFilter) -> float:  # fmt: skip
    found = 0
    for question in questions:
        [hits] = await store.search(
            [VectorSearch(space.name, Vectors(question.tobytes(), 1, space.dim), 10, conditions)]
        )
        numbers = {(hit.content.int - 1) * PER_CONTENT + hit.seq for hit in hits}
        found += len(numbers & exact_top(rows, question, among))
    return found / (10 * len(questions))


async def run(count: int, dim: int, folder: Path) -> int:
    report = Report()
    rows, inside = clustered(count + QUESTIONS, dim, 1), folders_of(count, 2)
    rows, questions = rows[:count], rows[count:]
    space = Space(SpaceName(f"bench-{dim}"), ModelKey("bench"), "f", dim)
    store = StoreProcess(StoreSettings(backend="edge", min_free_mb=64), folder, Limits())
    asked = VectorSearch(space.name, Vectors(questions[0].tobytes(), 1, dim), 10)
    print(f"{count} points of {dim} dimensions, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    try:
        await store.ensure(space)
        half = count // 2
        before = cpu_s(store.pid or 0)
        wall = await ingest(store, space, rows, inside, 0, half)
        report.row("ingest, quantized on the way", half / wall, "points/s", at_least=1500)
        report.row("  CPU of the store process", (cpu_s(store.pid or 0) - before) / half * 1e6, "us/point")

        waits = Waits()
        idle = asyncio.create_task(waits.lag())
        await asyncio.sleep(2)
        idle.cancel()
        report.row("loop lag, idle: p99", quantiles(waits.lags)[1], "ms")

        waits = Waits()
        watching = [asyncio.create_task(waits.lag()), asyncio.create_task(waits.search(store, asked))]
        await ingest(store, space, rows, inside, half, count)
        for task in watching:
            task.cancel()
        p50, p99, worst = quantiles(waits.searches)
        report.row("search while points flow in and are quantized: p50", p50, "ms")
        report.row("  p99", p99, "ms")
        report.row("  worst (one engine call quantizes 16,384 points)", worst, "ms", at_most=2000)

        await store.flush()
        await search_cost(report, store, space, rows, questions, "as ingested")
        waits = Waits()
        watching = [asyncio.create_task(waits.lag()), asyncio.create_task(waits.search(store, asked))]
        await rewrite(store, space, rows, inside)
        for task in watching:
            task.cancel()
        report.row("loop lag while the store optimizes: p99", quantiles(waits.lags)[1], "ms", at_most=20)
        report.row("  worst", quantiles(waits.lags)[2], "ms", at_most=100)
        report.row("search while the store optimizes: worst", quantiles(waits.searches)[2], "ms")

        health = (await store.health()).spaces[space.name]
        report.row("points", health.points, "", at_least=count, at_most=count)
        report.row("not quantized", health.unquantized, "points")
        report.row("disk", health.disk_bytes / count, "B/point")
        report.row(
            "resident memory of the process, file pages included", (await store.health()).resident_bytes / 1e6, "MB"
        )
        report.row(
            "  of that not reclaimable", anonymous_bytes(store.pid or 0) / 1e6, "MB", at_most=60 + 1.3 * count / 1000
        )

        await search_cost(report, store, space, rows, questions, "after a quarter was rewritten")

        report.row("recall@10", await recall(store, space, rows, questions, None, PointFilter()), "", at_least=0.99)
        for place, (share, directory) in enumerate(SHARES.items()):
            among = np.flatnonzero(inside[:, place])
            value = await recall(store, space, rows, questions, among, PointFilter(any_dir=(directory,)))
            report.row(f"recall@10 under a filter that {share:.0%} pass", value, "", at_least=0.98)

        await store.close()
        store = StoreProcess(StoreSettings(backend="edge", min_free_mb=64), folder, Limits())
        started = time.perf_counter()
        await store.ensure(space)
        report.row("start and load", time.perf_counter() - started, "s", at_most=1 + count / 100_000)
    finally:
        await store.close()
    return 1 if report.missed else 0


async def search_cost(report: Report, store: StoreProcess, space: Space, rows: np.ndarray, questions: np.ndarray,
                      state: str) -> None:  # fmt: skip
    """CPU of one search top 10 in the store process, beside numpy's exact scan of the same vectors."""
    before, started = cpu_s(store.pid or 0), time.perf_counter()
    for question in questions:
        await store.search([VectorSearch(space.name, Vectors(question.tobytes(), 1, space.dim), 10)])
    wall_ms = (time.perf_counter() - started) / len(questions) * 1000
    cpu_ms = (cpu_s(store.pid or 0) - before) / len(questions) * 1000
    started = time.process_time()
    for question in questions:
        exact_top(rows, question, None)
    numpy_ms = (time.process_time() - started) / len(questions) * 1000
    report.row(f"search top 10, {state}: CPU of the process", cpu_ms, "ms", at_most=3 * max(1.0, len(rows) / 100_000))
    report.row("  wall, wire and all", wall_ms, "ms")
    report.row(
        "  CPU against numpy's exact scan", cpu_ms / numpy_ms, "ratio", at_most=1 if len(rows) >= 50_000 else None
    )


async def rewrite(store: StoreProcess, space: Space, rows: np.ndarray, inside: np.ndarray) -> None:
    """Make work for optimize(): delete a quarter, put it back, optimize."""
    quarter = len(rows) // 4
    names = [uuid.UUID(int=n + 1) for n in range(quarter // PER_CONTENT)]
    await store.delete_contents(space.name, names)
    await ingest(store, space, rows, inside, 0, len(names) * PER_CONTENT)
    await store.optimize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return asyncio.run(run(options.points, options.dim, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
