"""Values of the vector store as plain wire values, and back.

In and out: frozen values of `store/vector_store.py` and `domain/space.py`; lists, maps, ints and bytes that msgpack
carries.
Vectors are no part of it: they travel as the raw body of a frame. Standard library only: both sides import this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from msearchd.domain.media import SegmentKind
from msearchd.domain.space import (
    SPARSE_ROW_BYTES,
    ModelKey,
    Point,
    PointPayload,
    Space,
    SpaceName,
    SparseVectors,
    Vectors,
)
from msearchd.store.vector_store import PointFilter, ScoredPoint, VectorSearch

Plain = dict[str, Any]


def space_to_wire(space: Space) -> Plain:
    """All fields of *space*."""
    return {
        "name": space.name,
        "model": space.model,
        "fingerprint": space.fingerprint,
        "dim": space.dim,
        "distance": space.distance,
        "multi": space.multi,
        "sparse": space.sparse,
    }


def space_from_wire(fields: Mapping[str, Any]) -> Space:
    """Undo `space_to_wire`. Raises KeyError where a field is missing."""
    return Space(
        SpaceName(fields["name"]),
        ModelKey(fields["model"]),
        fields["fingerprint"],
        int(fields["dim"]),
        fields["distance"],
        bool(fields["multi"]),
        bool(fields.get("sparse", False)),  # files of before there were any
    )


def points_to_wire(points: Sequence[Point]) -> list[list[Any]]:
    """One flat list a point: ids as 16 bytes, everything else as it is."""
    return [
        [
            point.id.bytes,
            p.content.bytes,
            p.kind.value,
            p.seq,
            list(p.dirs),
            p.type_label,
            p.modality,
            p.size,
            p.page,
            p.t0_ms,
            p.t1_ms,
            p.host,
        ]
        for point in points
        for p in (point.payload,)
    ]


def points_from_wire(rows: Sequence[Sequence[Any]]) -> list[Point]:
    """Undo `points_to_wire`."""
    return [
        Point(
            UUID(bytes=row[0]), PointPayload(UUID(bytes=row[1]), SegmentKind(row[2]), row[3], tuple(row[4]), *row[5:])
        )
        for row in rows
    ]


def filter_to_wire(conditions: PointFilter) -> Plain:
    """The conditions that are set; no key is no condition."""
    fields: Plain = {
        "any_dir": list(conditions.any_dir),
        "type_labels": list(conditions.type_labels),
        "modalities": list(conditions.modalities),
        "contents": [content.bytes for content in conditions.contents],
        "kinds": [kind.value for kind in conditions.kinds],
        "min_size": conditions.min_size,
        "max_size": conditions.max_size,
    }
    return {key: value for key, value in fields.items() if value not in ([], None)}


def filter_from_wire(fields: Mapping[str, Any]) -> PointFilter:
    """Undo `filter_to_wire`."""
    return PointFilter(
        any_dir=tuple(fields.get("any_dir", ())),
        type_labels=tuple(fields.get("type_labels", ())),
        modalities=tuple(fields.get("modalities", ())),
        contents=tuple(UUID(bytes=content) for content in fields.get("contents", ())),
        min_size=fields.get("min_size"),
        max_size=fields.get("max_size"),
        kinds=tuple(SegmentKind(kind) for kind in fields.get("kinds", ())),
    )


def searches_to_wire(searches: Sequence[VectorSearch]) -> tuple[list[Plain], bytes]:
    """The searches without their vectors, and all vectors one after another."""
    rows = [
        {
            "space": s.space,
            "limit": s.limit,
            "exact": s.is_exact,
            "filter": filter_to_wire(s.filter),
            "count": s.vector.count,
            "dim": s.vector.dim,
            "sparse": isinstance(s.vector, SparseVectors),
        }
        for s in searches
    ]
    return rows, b"".join(bytes(search.vector.data) for search in searches)


def searches_from_wire(rows: Sequence[Mapping[str, Any]], body: memoryview) -> list[VectorSearch]:
    """Undo `searches_to_wire`; the vectors are views of *body*. Raises ValueError where the body is too short."""
    searches, at = [], 0
    for row in rows:
        count, dim = row["count"], row["dim"]
        if row["sparse"]:
            size = count * SPARSE_ROW_BYTES
            vector: Vectors = SparseVectors(body[at : at + size], count, dim, (count,))
        else:
            size = count * dim * 4
            vector = Vectors(body[at : at + size], count, dim)
        conditions = filter_from_wire(row["filter"])
        searches.append(VectorSearch(SpaceName(row["space"]), vector, row["limit"], conditions, row["exact"]))
        at += size
    return searches


def hits_to_wire(lists: Sequence[Sequence[ScoredPoint]]) -> list[list[list[Any]]]:
    """One list a search, one flat list a hit."""
    return [[[hit.content.bytes, hit.kind.value, hit.seq, hit.score] for hit in hits] for hits in lists]


def hits_from_wire(lists: Sequence[Sequence[Sequence[Any]]]) -> list[list[ScoredPoint]]:
    """Undo `hits_to_wire`."""
    return [
        [ScoredPoint(UUID(bytes=content), SegmentKind(kind), seq, score) for content, kind, seq, score in hits]
        for hits in lists
    ]


def chunks_of(points: Sequence[Point], vectors: Vectors, *, size: int) -> list[tuple[Sequence[Point], Vectors]]:
    """Cut points and their rows into pieces of at most *size* points; the rows are views of the same bytes.

    Raises ValueError where points and rows do not match in number.
    """
    rows = vectors.rows
    if len(points) != (len(rows) if rows is not None else vectors.count) or (
        rows is not None and sum(rows) != vectors.count
    ):
        message = f"{len(points)} points do not match {vectors.count} vectors" + (
            "" if rows is None else f" in {len(rows)} groups"
        )
        raise ValueError(message)
    pieces, row_at = [], 0
    for start in range(0, len(points), size):
        part = points[start : start + size]
        groups = rows[start : start + size] if rows is not None else None
        count = sum(groups) if groups is not None else len(part)
        pieces.append((part, vectors.part(row_at, count, rows=groups)))
        row_at += count
    return pieces
