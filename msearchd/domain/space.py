"""Vector spaces, vectors and points.

A point is a pure function of (content bytes, space, segment): its id is UUIDv5 of those three, so indexing twice is a
no-op, identical files share points, and a rename touches none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NewType, Self
from uuid import UUID, uuid5

from msearchd.domain.asset import ContentHash
from msearchd.domain.media import SegmentKind

ModelKey = NewType("ModelKey", str)
SpaceName = NewType("SpaceName", str)

#: Namespace of all point ids; fixed for ever: changing it orphans every index in the world.
POINT_NAMESPACE = UUID("6f2d3c1e-8a4b-5d7f-9e10-6d7365617263")


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space: one model fingerprint, one dimension. Vectors of two spaces never rank against each other.

    Of the three kinds of vectors (dense; `multi`; `sparse`) it holds one.
    """

    name: SpaceName
    model: ModelKey
    #: Hash over model id, revision, weights, preprocessing, chunking and dtype.
    fingerprint: str
    dim: int
    distance: str = "cosine"
    #: True where each item has many vectors (late interaction, MaxSim).
    multi: bool = False
    #: True where an item is some weighted dimensions of `dim`, its model's vocabulary (SPLADE); distance "dot".
    sparse: bool = False


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
        if len(self.data) != self.count * self.row_bytes:
            message = f"{len(self.data)} bytes are not float32[{self.count}, {self.dim}]"
            raise ValueError(message)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dim * 4

    def row(self, index: int) -> bytes:
        """Bytes of one row."""
        step = self.row_bytes
        return bytes(self.data[index * step : (index + 1) * step])

    def part(self, first: int, count: int, *, rows: tuple[int, ...] | None = None, costs: tuple[int, ...] = ()) -> Self:
        """*count* rows from *first* on, those of *rows* items; a view of the same bytes. Of the same kind as all."""
        step = self.row_bytes
        data = memoryview(self.data)[first * step : (first + count) * step]
        return type(self)(data, count, self.dim, rows, costs)


#: Bytes of one entry of a sparse vector.
SPARSE_ROW_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class SparseVectors(Vectors):
    """Sparse vectors of `dim` dimensions: a row is one entry, (uint32 dimension, float32 weight), little-endian.

    `rows` says how many entries each item has (0: nothing active), `count` is their sum. Within an item the dimensions
    ascend. Near is the dot product; nothing is normalised.
    """

    def __post_init__(self) -> None:
        if self.rows is None or sum(self.rows) != self.count or len(self.data) != self.count * self.row_bytes:
            message = f"{len(self.data)} bytes are not {self.count} entries of sparse vectors in {self.rows} groups"
            raise ValueError(message)

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry."""
        return SPARSE_ROW_BYTES


def vectors_class(*, is_sparse: bool) -> type[Vectors]:
    """The class of vectors of a kind."""
    return SparseVectors if is_sparse else Vectors


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
