"""Vector spaces, vectors and points.

A point is a pure function of (content bytes, space, segment): its id is UUIDv5 of those three, so indexing twice is a
no-op, identical files share points, and a rename touches none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType
from uuid import UUID, uuid5

from msearchd.domain.asset import ContentHash
from msearchd.domain.media import SegmentKind

ModelKey = NewType("ModelKey", str)
SpaceName = NewType("SpaceName", str)

#: Namespace of all point ids; fixed for ever: changing it orphans every index in the world.
POINT_NAMESPACE = UUID("6f2d3c1e-8a4b-5d7f-9e10-6d7365617263")


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space: one model fingerprint, one dimension. Vectors of two spaces never rank against each other."""

    name: SpaceName
    model: ModelKey
    #: Hash over model id, revision, weights, preprocessing, chunking and dtype.
    fingerprint: str
    dim: int
    distance: str = "cosine"
    #: True where each item has many vectors (late interaction, MaxSim).
    multi: bool = False


@dataclass(frozen=True, slots=True)
class Vectors:
    """float32[count, dim], little-endian and row-major, as raw bytes: the daemon never imports numpy."""

    data: bytes | memoryview
    count: int
    dim: int
    #: For multi-vectors: rows of each item, summing to `count`; None means one row an item.
    rows: tuple[int, ...] | None = None
    #: What each item cost the model (tokens, patches, frames); empty where it was not told.
    costs: tuple[int, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if len(self.data) != self.count * self.dim * 4:
            message = f"{len(self.data)} bytes are not float32[{self.count}, {self.dim}]"
            raise ValueError(message)

    def row(self, index: int) -> bytes:
        """Bytes of one row."""
        step = self.dim * 4
        return bytes(self.data[index * step : (index + 1) * step])


@dataclass(frozen=True, slots=True)
class PointRef:
    """What a point stands for; its id follows from it."""

    content_hash: ContentHash
    kind: SegmentKind
    seq: int

    def id_in(self, space: SpaceName) -> UUID:
        """UUIDv5 of (space, content, segment)."""
        return uuid5(POINT_NAMESPACE, f"{space}|{self.content_hash.hex()}|{self.kind.value}:{self.seq}")


@dataclass(frozen=True, slots=True)
class PointPayload:
    """Small and made of ids; paths, text and times live in the catalog."""

    content: UUID
    kind: SegmentKind
    seq: int
    dirs: tuple[int, ...]  # ids of every folder that holds an asset of this content, ancestors included
    type_label: str = ""  # "pdf", "markdown"; like modality and size a function of the bytes, so a filter can use it
    modality: str = ""
    size: int = 0
    page: int | None = None
    t0_ms: int | None = None
    t1_ms: int | None = None
    host: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One vector (or multi-vector) of one segment in one space."""

    id: UUID
    payload: PointPayload
