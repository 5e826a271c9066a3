"""The vector cache: what it costs while files are indexed, and what it saves when the index is built again.

    python -m bench.rebuild_bench [--files 200] [--rounds 3]

A round: two warm daemons with all-MiniLM-L6-v2 on one thread, one without a cache and one with it, take turns (the order
changes each round) to index the same real text files; then the one with the cache throws its index away (`reset index`) and
builds it again. Seconds of CPU of the daemon and all its children, and seconds until `sync` says that all is searchable;
ratios of medians. "Passages through a model" of a rebuild must be 0. Beside it, in one process: put and get of passages of
384 numbers, CPU against that of embedding them in the same run.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

from bench.common import Report, arguments, tree_cpu_s
from bench.corpus import copy_into, real_text_files
from bench.text_indexing import BenchHome, points
from msearchd.domain.space import ModelKey, Space, SpaceName, Vectors
from msearchd.store.vector_cache import VectorCache

_DIM = 384
_GROUP = 256


@dataclass(frozen=True, slots=True)
class Run:
    """One indexing of all files."""

    wall_s: float
    cpu_s: float
    passages: int


def _synced(home: BenchHome) -> None:
    while not home.api.post("/sync", {"timeout_s": 600}, timeout_s=610)["is_complete"]:
        pass


def _embedded(home: BenchHome) -> int:
    return sum(int(model["samples"]) for model in home.api.get("/models")["models"])


def _timed(home: BenchHome, begin: str, body: dict[str, object]) -> Run:
    assert home.process is not None
    began, cpu = time.perf_counter(), tree_cpu_s(home.process.pid)
    home.api.post(begin, body, timeout_s=120)
    _synced(home)
    return Run(time.perf_counter() - began, tree_cpu_s(home.process.pid) - cpu, points(home))


def _home(folder: Path, cache_mb: int) -> BenchHome:
    folder.mkdir()
    home = BenchHome(
        folder, settings={"limits": {"nice": 0}, "log": {"level": "info"}, "store": {"cache_mb": cache_mb}}
    )
    home.start()
    (home.files / "warm.txt").write_text("A first file, so that the model is loaded and warm.\n")
    home.api.post("/folders", {"path": str(home.files)})
    _synced(home)
    return home


def one_round(files: list[Path], folder: Path, *, is_cached_first: bool) -> tuple[Run, Run, Run, int]:
    """(without a cache, with it, built again, passages that went through a model for that)."""
    found: dict[int, Run] = {}
    again, embedded = Run(0, 0, 0), 0
    for cache_mb in (512, 0) if is_cached_first else (0, 512):
        home = _home(folder / f"cache-{cache_mb}", cache_mb)
        try:
            copied = folder / f"real-{cache_mb}"
            copy_into(copied, files)
            found[cache_mb] = _timed(home, "/folders", {"path": str(copied)})
            if cache_mb:
                before = _embedded(home)
                again = _timed(home, "/system/reset", {"reset_type": "index", "confirm": True})
                embedded = _embedded(home) - before
        finally:
            home.stop()
    return found[0], found[512], again, embedded


async def _cache_alone(passages: int) -> tuple[float, float]:
    """CPU milliseconds of (put, get) a thousand passages, in groups as the embed step has them."""
    dice = random.Random(1)
    data = array("f", [dice.gauss(0, 0.05) for _ in range(_DIM * _GROUP)]).tobytes()
    space = Space(SpaceName("bench"), ModelKey("bench"), "f", _DIM)
    with tempfile.TemporaryDirectory(prefix="msearchd-bench-") as folder:
        cache = await VectorCache.open(Path(folder) / "cache.db", max_bytes=1 << 30)
        assert cache is not None
        groups = [[dice.randbytes(16) for _ in range(_GROUP)] for _ in range(passages // _GROUP)]
        began = time.process_time()
        for keys in groups:
            await cache.put(space, keys, Vectors(data, _GROUP, _DIM))
        put = time.process_time() - began
        began = time.process_time()
        for keys in groups:
            assert None not in await cache.get(space, keys)
        get = time.process_time() - began
        await cache.close()
    scale = 1e6 / (len(groups) * _GROUP)
    return put * scale, get * scale


def main() -> int:
    """Print the ratios; exit status 0 if the bars are met."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--files", type=int, default=200)
    args = parser.parse_args()
    report = Report("rebuild", args.out)
    files = real_text_files(args.files, most_bytes=2500)
    rounds = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory(prefix="msearchd-bench-") as folder:
            rounds.append(one_round(files, Path(folder), is_cached_first=number % 2 == 1))
        plain, cached, again, embedded = rounds[-1]
        report.row(
            f"round {number + 1}, {plain.passages} passages", plain_cpu_s=plain.cpu_s, cached_cpu_s=cached.cpu_s,
            again_cpu_s=again.cpu_s, again_s=again.wall_s, first_s=cached.wall_s, embedded_again=embedded,
        )  # fmt: skip
    plain_cpu, cached_cpu, again_cpu = (statistics.median(one[at].cpu_s for one in rounds) for at in range(3))
    put_ms, get_ms = asyncio.run(_cache_alone(20_480))
    model_ms = 1e6 * plain_cpu / rounds[0][0].passages
    report.row("cache alone, CPU ms per 1,000 passages of 384", put=put_ms, get=get_ms, indexing=model_ms)
    report.bar("indexing with the cache against without, CPU", value=cached_cpu / plain_cpu, at_most=1.05)
    report.bar("the cache's own put against indexing, CPU", value=1 + put_ms / model_ms, at_most=1.05)
    report.bar("building again against first indexing, CPU", value=again_cpu / cached_cpu, at_most=0.25)
    report.bar("passages through a model while building again", value=max(one[3] for one in rounds), at_most=0)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
