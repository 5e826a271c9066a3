"""Points, vectors and questions for the tests of the vector store."""

from __future__ import annotations

import contextlib
import math
import os
import random
import struct
import tempfile
from pathlib import Path
from uuid import UUID

from msearchd.aio.child import Limits
from msearchd.domain.asset import ContentHash, content_uuid
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import (
    ModelKey,
    Point,
    PointPayload,
    PointRef,
    Space,
    SpaceName,
    SparseVectors,
    Vectors,
)
from msearchd.settings.model import StoreSettings
from msearchd.store.client import StoreProcess
from msearchd.store.vector_store import PointFilter, VectorSearch

DIM = 8


def space_named(name: str, *, dim: int = DIM, multi: bool = False) -> Space:
    return Space(SpaceName(name), ModelKey("model"), "f" * 8, dim, multi=multi)


def content_hash(number: int) -> ContentHash:
    return ContentHash(number.to_bytes(16, "big") + bytes(16))


def content(number: int) -> UUID:
    return content_uuid(content_hash(number))


def vector_of(content_number: int, seq: int = 0, *, dim: int = DIM) -> list[float]:
    """Unit vector that follows from what the point stands for: a torn point gives itself away."""
    spread = random.Random(content_number * 1_000_003 + seq)
    numbers = [spread.gauss(0, 1) for _ in range(dim)]
    length = math.sqrt(sum(n * n for n in numbers))
    return [n / length for n in numbers]


def vectors(rows: list[list[float]], *, groups: tuple[int, ...] | None = None) -> Vectors:
    data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
    return Vectors(data, len(rows), len(rows[0]), groups)


VOCABULARY = 1000


def sparse_space(name: str) -> Space:
    return Space(SpaceName(name), ModelKey("model"), "f" * 8, VOCABULARY, distance="dot", sparse=True)


def sparse_of(content_number: int, seq: int = 0) -> list[tuple[int, float]]:
    """Weighted dimensions that follow from what the point stands for; dimension 0 is in all of them."""
    spread = random.Random(content_number * 1_000_003 + seq)
    dims = sorted(spread.sample(range(1, VOCABULARY), 40))
    return [(0, 0.125), *((dim, struct.unpack("<f", struct.pack("<f", 0.2 + spread.random()))[0]) for dim in dims)]


def sparse_vectors(rows: list[list[tuple[int, float]]]) -> SparseVectors:
    data = b"".join(struct.pack("<If", *entry) for row in rows for entry in row)
    return SparseVectors(data, len(data) // 8, VOCABULARY, tuple(map(len, rows)))


def point(space: Space, number: int, seq: int = 0, *, dirs=(1,), kind=SegmentKind.BODY, **more) -> Point:
    ref = PointRef(content_hash(number), kind, seq)
    return Point(ref.id_in(space.name), PointPayload(content(number), kind, seq, tuple(dirs), **more))


def points_of(space: Space, numbers, *, segments: int = 1, **more) -> tuple[list[Point], Vectors]:
    """Points of the contents *numbers*, *segments* each, with the vectors that belong to them."""
    pairs = [(number, seq) for number in numbers for seq in range(segments)]
    rows = [vector_of(number, seq, dim=space.dim) for number, seq in pairs]
    return [point(space, number, seq, **more) for number, seq in pairs], vectors(rows)


def question(
    space: Space, number: int, seq: int = 0, *, limit: int = 10, is_exact: bool = False, **conditions
) -> VectorSearch:
    vector = vectors([vector_of(number, seq, dim=space.dim)])
    return VectorSearch(space.name, vector, limit, PointFilter(**conditions), is_exact)


async def contents_in(store: StoreProcess, space: Space) -> dict[UUID, int]:
    found: dict[UUID, int] = {}
    async for page in store.contents(space.name):
        for name, count in page.items():
            found[name] = found.get(name, 0) + count
    return found


def store_in(folder: Path, **settings) -> StoreProcess:
    return StoreProcess(StoreSettings(**{"backend": "edge", "min_free_mb": 0, **settings}), folder, Limits())


@contextlib.contextmanager
def folder_in_memory(fallback: Path):
    """A folder whose syncs cost nothing, where the system has one; real disks cost a second a test, and nothing here needs it."""
    if not os.access("/dev/shm", os.W_OK):
        yield fallback
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="msearchd-test-") as folder:
        yield Path(folder)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def scanned(folder: Path, space: Space) -> dict[UUID, dict]:
    """Every point of a closed store as the engine itself reads it: {point id: payload}; fails on a torn vector."""
    import numpy as np
    import qdrant_edge as q

    shard = q.EdgeShard.load(str(folder / "vectors" / "spaces" / space.name / "shard"))
    found, after = {}, None
    while True:
        records, after = shard.scroll(q.ScrollRequest(offset=after, limit=5000, with_payload=True, with_vector=True))
        for record in records:
            payload = record.payload
            number = int.from_bytes(UUID(payload["content"]).bytes, "big")
            own = vector_of(number, payload["seq"], dim=space.dim)
            vector = record.vector["v"] if isinstance(record.vector, dict) else record.vector
            assert np.allclose(vector, own, atol=1e-5), f"torn point {record.id} of content {number}"
            assert UUID(str(record.id)) == point(space, number, payload["seq"]).id
            found[UUID(str(record.id))] = payload
        if after is None:
            break
    shard.close()
    return found
