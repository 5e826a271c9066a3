"""The protocol of a vector store, and its values.

In: points with float32 vectors, searches. Out: scored points. The daemon's implementation is a thin client of the store
process (`store/client.py`), whose backends (edge, server, memory) answer the same operations; one contract suite
holds all. Ids are pure functions of content, space and segment, so every operation may be repeated.
Failures: RetryLater (process restarting, server down, disk full), Misconfigured (package, URL, key), BadAsset (NaN
vector).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from msearchd.domain.media import SegmentKind
from msearchd.domain.space import Point, Space, SpaceName, Vectors


@dataclass(frozen=True, slots=True)
class PointFilter:
    """Conditions on payloads, all of which must hold; an empty tuple is no condition."""

    any_dir: tuple[int, ...] = ()  # `dirs` holds one of these folder ids
    type_labels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    contents: tuple[UUID, ...] = ()  # only these contents (time filters end up here)
    min_size: int | None = None
    max_size: int | None = None
    kinds: tuple[SegmentKind, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorSearch:
    """One question to one space: nearest points to `vector` (one row; several rows in a multi or sparse space)."""

    space: SpaceName
    vector: Vectors
    limit: int
    filter: PointFilter = field(default_factory=PointFilter)
    #: True compares with every original vector (benchmarks, verify); False lets quantization choose candidates.
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A point near the question; cosine similarity (dot product in a sparse space), higher is nearer."""

    content: UUID
    kind: SegmentKind
    seq: int
    score: float


@dataclass(frozen=True, slots=True)
class SpaceHealth:
    """Exact number of points, bytes on disk (blocks, not apparent size), points not yet quantized."""

    points: int
    disk_bytes: int = 0
    unquantized: int = 0


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """State of the store for `msearch status`."""

    backend: str
    is_ok: bool
    reason: str = ""
    resident_bytes: int = 0
    restarts: int = 0
    spaces: dict[SpaceName, SpaceHealth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Damage:
    """The files of a space were found damaged and set aside; what the catalog calls live in it must be embedded
    again.
    """

    space: SpaceName
    reason: str


class VectorStore(Protocol):
    """What every vector store promises."""

    async def ensure(self, space: Space) -> None:
        """Create the space with its payload indexes if it is not there. Misconfigured if it exists with another dim."""
        ...

    async def upsert(self, space: SpaceName, points: Sequence[Point], vectors: Vectors) -> None:
        """Store points; one vector row (or `rows` group) each. Twice is once. Survives the death of any process on
        return.
        """
        ...

    async def set_dirs(self, space: SpaceName, content: UUID, dirs: Sequence[int]) -> None:
        """Replace the folder list of all points of *content*; quiet if there are none."""
        ...

    async def delete_contents(self, space: SpaceName, contents: Sequence[UUID]) -> None:
        """Delete all points of *contents*; quiet if there are none."""
        ...

    async def search(self, searches: Sequence[VectorSearch]) -> list[list[ScoredPoint]]:
        """Answer several questions in one round trip, best first; overtakes queued writes. An unknown space answers
        [].
        """
        ...

    async def count(self, space: SpaceName) -> int:
        """Exact number of points; 0 for an unknown space."""
        ...

    def contents(self, space: SpaceName) -> AsyncIterator[dict[UUID, int]]:
        """Stream {content: number of points}, in batches, a content possibly in several of them. For verify."""
        ...

    async def flush(self) -> None:
        """Everything upserted or deleted before is on the disk when this returns (safe against a power cut)."""
        ...

    async def optimize(self) -> None:
        """Quantize and merge what has grown; searches go on meanwhile. Cheap when there is nothing to do."""
        ...

    async def spaces(self) -> list[SpaceName]:
        """Names of the spaces that exist."""
        ...

    async def drop(self, space: SpaceName) -> None:
        """Delete a space and its files; quiet if it does not exist."""
        ...

    async def health(self) -> StoreHealth:
        """Never raises: a store that is down says so in `reason`."""
        ...

    async def close(self) -> None:
        """Flush and end."""
        ...
