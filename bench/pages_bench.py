"""Pages a second of a page model where its processor works ahead of the device, against the same work one after the other.

    python -m bench.pages_bench [--pages 36] [--rounds 3] [--engine infinity|colpali]

A tiny random ColPali of the real class through pool and wire, pages of 900 x 1300 pixels. The device stands for a GPU: each
page waits as long on it as the processor took for a page, measured first, so that two is the most there is to win.
A bar that is missed: 1.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import page_models
import timed_pages_engine

from bench.common import Report, arguments
from msearchd.aio.child import Limits
from msearchd.domain.sample import Picture
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings.model import EmbeddingModel, InferenceSettings

PAGES = ModelKey("pages")
SIZE = (900, 1300)


def pages(count: int) -> list[Picture]:
    """Grey pages, each another one: what is known is not embedded again."""
    width, height = SIZE
    return [Picture(width, height, bytes([9 * shade % 251]) * (width * height * 3)) for shade in range(count)]


class Running:
    """One way in a pool of its own; a round embeds all pages."""

    def __init__(self, place: Path, folder: Path, *, engine: str, wait_s: float, is_late: bool) -> None:
        place.mkdir()
        file, self.spans = timed_pages_engine.written(place, engine, wait_s=wait_s, is_late=is_late)
        model = EmbeddingModel(name=PAGES, source=str(folder), serves="page", engine=engine, device="cpu", threads=1)
        settings = InferenceSettings(models=(model,), text_model="", page_model=PAGES)
        self._pool = Pool(
            settings, limits=Limits(), chunking="c", state_dir=place, engine_files={engine: file}, uses_forkserver=False
        )

    async def round_s(self, samples: list[Picture]) -> float:
        await self._pool.embed(["w"], model=PAGES, role=Role.QUERY, lane=Lane.INTERACTIVE, deadline_s=300)
        self.spans.write_text("")
        began = time.monotonic()
        await self._pool.embed(samples, model=PAGES, role=Role.DOCUMENT, lane=Lane.BULK, deadline_s=300)
        return time.monotonic() - began

    async def end(self) -> None:
        await self._pool.close()


async def measure(options: object, report: Report, place: Path) -> None:
    """Print the rows."""
    engine, count, rounds = options.engine, options.pages, options.rounds
    python = page_models.INFINITY if engine == "infinity" else page_models.COLPALI
    folder = page_models.make(python, place / "model", "colpali") / "colpali"
    first = Running(place / "first", folder, engine=engine, wait_s=0.0, is_late=False)
    await first.round_s(pages(9))
    page_s = statistics.median(to - at for at, to, _ in timed_pages_engine.read(first.spans)["processor"])
    await first.end()
    ways = {
        name: Running(place / name, folder, engine=engine, wait_s=page_s, is_late=name == "behind")
        for name in ("ahead", "behind")
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            took = await way.round_s(pages(count))
            if number:
                seconds[name].append(took)
    for name, way in ways.items():
        report.row(name, pages_per_s=count / min(seconds[name]), processor_ms=page_s * 1000)
        await way.end()
    won = statistics.median(b / a for a, b in zip(seconds["ahead"], seconds["behind"], strict=True))
    report.bar("pages/s with the processor ahead, against after one another", value=won, at_least=1.3)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; 0 if the bar was met."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--pages", type=int, default=36)
    parser.add_argument("--engine", choices=("infinity", "colpali"), default="infinity")
    options = parser.parse_args(argv)
    report = Report("pages", options.out)
    with tempfile.TemporaryDirectory(prefix="msd-pages-") as place:
        asyncio.run(measure(options, report, Path(place)))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
