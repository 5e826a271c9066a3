"""A whole search against what it cannot do without: embedding the question and asking the store.

    python -m bench.search_bench [--points 100000] [--questions 60] [--rounds 3]

Data: real passages (the interpreter's library and packages) in the catalog, 8 a file; clustered vectors of the model's
dimension in the store. Questions: runs of 2 to 6 words out of the passages, their words in other orders, file names.
CPU of the daemon and all its children, three candidates in turns, question by question in one process:

    embed    pool.embed(question)                    a model worker (all-MiniLM-L6-v2), one thread
    store    store.search(vector, 100 candidates)    the store process
    search   SearchService.search(question)          both of these, and words, names, fusion, join, snippets

Bar: CPU of search <= 1.2 x (embed + store). Exit status 1 if it is missed.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from bench.common import Report, arguments, tree_cpu_s
from bench.store_bench import clustered
from msearchd.aio.child import Limits
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetState, ContentHash, StatFingerprint, content_uuid
from msearchd.domain.media import Extraction, Identified, Modality, Segment, SegmentKind
from msearchd.domain.query import Filters, SearchQuery
from msearchd.domain.sample import Sample
from msearchd.domain.space import ModelKey, Point, PointPayload, PointRef, Space, Vectors
from msearchd.inference.pool import Pool
from msearchd.inference.spec import Lane, Role
from msearchd.search.asker import Asked
from msearchd.search.service import SearchService
from msearchd.settings.model import EmbeddingModel, InferenceSettings, SearchSettings, StoreSettings
from msearchd.store.catalog import Catalog
from msearchd.store.client import StoreProcess

MODEL = ModelKey("all-minilm-l6-v2")
PER_FILE = 8
PASSAGE_CHARS = 700
BAR = 1.2


def passages(count: int, seed: int = 5) -> list[str]:
    """*count* passages of about 700 characters from real text files; said aloud if there are fewer here."""
    endings = {".py", ".md", ".rst", ".txt", ".pyi", ".html", ".h"}
    places = [Path(os.__file__).parent, *(Path(path) for path in sys.path if path.endswith("site-packages"))]
    files = sorted({path for place in places for path in place.rglob("*") if path.suffix in endings and path.is_file()})
    random.Random(seed).shuffle(files)
    found: list[str] = []
    for path in files:
        text = path.read_text(errors="replace")[:60_000]
        found += [text[at : at + PASSAGE_CHARS] for at in range(0, len(text) - 200, PASSAGE_CHARS)]
        if len(found) >= count:
            return found[:count]
    sys.exit(f"only {len(found)} passages of text are on this machine; ask for fewer with --points")


def questions_of(texts: list[str], count: int, seed: int = 6) -> list[str]:
    """Half are runs of words as they stand, a quarter the same words shuffled, a quarter file names."""
    chance = random.Random(seed)
    asked: list[str] = []
    while len(asked) < count:
        words = [word for word in chance.choice(texts).split() if word.isalpha()]
        if len(words) < 12:
            continue
        at, length = chance.randrange(len(words) - 6), chance.randint(2, 6)
        some = words[at : at + length]
        if len(asked) % 4 == 2:
            chance.shuffle(some)
        asked.append(f"file {len(asked)}.txt" if len(asked) % 4 == 3 else " ".join(some))
    return asked


class _Questions:
    """What search.asker.Asker promises, with a model of texts alone."""

    def __init__(self, embed: Callable[[str], Awaitable[tuple[Space, Vectors]]]) -> None:
        self._embed = embed

    async def modalities(self) -> tuple[str, ...]:
        return ()

    async def loading_s(self, modality: str) -> float | None:  # noqa: ARG002
        return None

    async def ask(self, modality: str, samples: Sequence[Sample], *, role: Role) -> Asked:  # noqa: ARG002
        [text] = samples
        space, vectors = await self._embed(str(text))
        return Asked(space, (vectors,))


@dataclass
class Bench:
    """Everything that a search needs, warm."""

    catalog: Catalog
    store: StoreProcess
    pool: Pool
    space: Space
    service: SearchService
    costs: dict[str, list[float]] = field(default_factory=dict)
    waits: dict[str, list[float]] = field(default_factory=dict)

    async def embed(self, text: str) -> tuple[Space, Vectors]:
        found = await self.pool.embed([text], model=MODEL, role=Role.QUERY, lane=Lane.INTERACTIVE, deadline_s=60)
        return self.space, found

    async def measure(self, name: str, asks: list[Callable[[], Awaitable[object]]]) -> None:
        """CPU (milliseconds each, of this process and its children) and wall time of *asks*, one after the other."""
        cpu = tree_cpu_s(os.getpid())
        for ask in asks:
            began = time.perf_counter()
            await ask()
            self.waits.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        self.costs.setdefault(name, []).append((tree_cpu_s(os.getpid()) - cpu) * 1000 / len(asks))


async def fill(database: Database, catalog: Catalog, store: StoreProcess, space: Space, texts: list[str]) -> None:
    """Files of 8 passages in folders of 100 files; a tenth lies in /bench/tenth, a hundredth in /bench/hundredth."""
    vectors = clustered(len(texts), space.dim, seed=3)
    root = await database.write(lambda c: catalog.add_root_in(c, b"/bench"))
    await database.write(lambda c: catalog.put_space_in(c, space))
    await store.ensure(space)
    for first in range(0, len(texts), PER_FILE * 50):
        await _fill_some(database, catalog, store, space, root, texts, vectors, first)
    await store.flush()
    await store.optimize()


async def _fill_some(database, catalog, store, space, root, texts, vectors, first) -> None:
    files = [(number, texts[at : at + PER_FILE]) for at in range(first, min(first + PER_FILE * 50, len(texts)), PER_FILE)
             for number in (at // PER_FILE,)]  # fmt: skip

    def put(c):
        rows = []
        for number, some in files:
            place = "hundredth" if number % 100 == 0 else "tenth" if number % 10 == 1 else "rest"
            path = f"{place}/d{number // 100}/file {number}.txt".encode()
            stat = StatFingerprint(sum(map(len, some)), 10**18 + number, 10**18, number)
            hash_ = ContentHash(uuid.uuid5(uuid.NAMESPACE_OID, str(number)).bytes * 2)
            asset = catalog.see_file_in(c, root, path, stat)
            content = catalog.identified_in(c, asset, Identified(stat, hash_, "text/plain", "txt", Modality.TEXT))
            catalog.extracted_in(c, content.id, Extraction(tuple(
                Segment(SegmentKind.BODY, seq, text) for seq, text in enumerate(some))))  # fmt: skip
            catalog.live_in(c, space.name, content.id, len(some))
            catalog.set_state_in(c, asset, AssetState.INDEXED)
            rows.append((hash_, content.id, some))
        return rows

    rows = await database.write(put)
    points = []
    for hash_, content_id, some in rows:
        dirs = await catalog.dirs_of(content_id)
        for seq in range(len(some)):
            ref = PointRef(hash_, SegmentKind.BODY, seq)
            payload = PointPayload(content_uuid(hash_), ref.kind, seq, dirs, "txt", "text", 5000)
            points.append(Point(ref.id_in(space.name), payload))
    data = vectors[first : first + len(points)].tobytes()
    await store.upsert(space.name, points, Vectors(data, len(points), space.dim))


async def compare(bench: Bench, questions: list[str], rounds: int, *, name: str, filters: Filters) -> float:
    """Costs under these filters; the median over rounds of search / (embed + store)."""
    from msearchd.store.vector_store import VectorSearch

    vectors = {text: (await bench.embed(text))[1] for text in questions}
    point_filter = (await bench.catalog.scope(filters)).point_filter
    limit = SearchSettings().candidates
    candidates = {
        f"embed{name}": [lambda text=text: bench.embed(text) for text in questions],
        f"store{name}": [
            lambda text=text: bench.store.search([VectorSearch(bench.space.name, vectors[text], limit, point_filter)])
            for text in questions
        ],
        f"search{name}": [
            lambda text=text: bench.service.search(SearchQuery(text, 10, filters)) for text in questions
        ],
    }  # fmt: skip
    for asks in candidates.values():
        await asks[0]()
    for number in range(rounds):
        for key in list(candidates) if number % 2 == 0 else reversed(candidates):
            await bench.measure(key, candidates[key])
    embed, store, search = (bench.costs[f"{key}{name}"] for key in ("embed", "store", "search"))
    return statistics.median(c / (a + b) for a, b, c in zip(embed, store, search, strict=True))


async def run(args) -> int:
    report = Report("search", args.out)
    texts = passages(args.points)
    questions = questions_of(texts, args.questions)
    limits = Limits(nice=0)
    model = EmbeddingModel(name=MODEL, source="sentence-transformers/all-MiniLM-L6-v2", threads=1)
    with tempfile.TemporaryDirectory(prefix="msearchd-bench-") as name:
        folder = Path(name)
        database = await Database.open(folder / "msearchd.db")
        catalog = Catalog(database)
        await catalog.open()
        store = StoreProcess(StoreSettings(), folder, limits)
        pool = Pool(InferenceSettings(models=(model,)), limits=limits, chunking="bench", state_dir=folder)
        try:
            space = await pool.space(MODEL)
            began = time.perf_counter()
            await fill(database, catalog, store, space, texts)
            size = (folder / "msearchd.db").stat().st_size
            report.row("filled", points=len(texts), seconds=time.perf_counter() - began, db_mb=size / 1e6)
            bench = Bench(catalog, store, pool, space, None)  # type: ignore[arg-type]
            bench.service = SearchService(catalog, store, _Questions(bench.embed), SearchSettings())
            for key, filters in (
                ("", Filters()),
                (", folder 10 %", Filters(folders=(b"/bench/tenth",))),
                (", folder 1 %", Filters(folders=(b"/bench/hundredth",))),
            ):
                ratio = await compare(bench, questions, args.rounds, name=key, filters=filters)
                for part in (f"embed{key}", f"store{key}", f"search{key}"):
                    waits = sorted(bench.waits[part])
                    report.row(part, cpu_ms=statistics.median(bench.costs[part]), p50_ms=statistics.median(waits),
                               p95_ms=waits[int(len(waits) * 0.95)])  # fmt: skip
                if key:
                    report.row(f"ratio{key}", ratio=ratio)
                else:
                    report.bar("CPU of a search by embedding + store search", value=ratio, at_most=BAR)
        finally:
            await pool.close()
            await store.close()
            await database.close()
    return report.finish()


def main() -> int:
    parser = arguments(__doc__ or "")
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=60)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
