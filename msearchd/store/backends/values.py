"""Values of points and questions, checked before an engine sees them. Child side: uses numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from msearchd import errors
from msearchd.domain.space import Point, Space, Vectors
from msearchd.store.vector_store import ScoredPoint, VectorSearch


def checked_rows(space: Space, points: Sequence[Point], vectors: Vectors) -> list[Any]:
    """One float32[dim] array a point, or a list of float lists for multi-vectors.

    Raises BadRequest where the shape is wrong, BadAsset where a number is not finite; nothing may be stored then.
    """
    if vectors.dim != space.dim:
        raise errors.BadRequest(
            f"space {space.name} has {space.dim} dimensions, the vectors {vectors.dim}",
            hint="embed with the model that the space was made for",
        )
    if space.multi is (vectors.rows is None):
        wanted = "several vectors a point" if space.multi else "one vector a point"
        raise errors.BadRequest(f"space {space.name} takes {wanted}")
    table = np.frombuffer(vectors.data, dtype="<f4").reshape(vectors.count, vectors.dim)
    finite = np.isfinite(table).all(axis=1)
    ends = np.cumsum(vectors.rows or (1,) * len(points))
    if not finite.all():
        bad = points[int(np.searchsorted(ends, int(np.argmin(finite)), side="right"))].payload
        raise errors.BadAsset(
            f"the vector of segment {bad.kind.value} {bad.seq} holds NaN or infinity; it was not stored"
        )
    if vectors.rows is None:
        return list(table)
    return [part.tolist() for part in np.split(table, ends[:-1])]


def checked_question(space: Space, search: VectorSearch) -> Any:
    """float32[dim], or float32[rows, dim] for a multi-vector space. Raises BadRequest where shape or numbers are
    wrong.
    """
    vector = search.vector
    if vector.dim != space.dim:
        raise errors.BadRequest(f"space {space.name} has {space.dim} dimensions, the question {vector.dim}")
    if vector.count != 1 and not space.multi:
        raise errors.BadRequest(f"space {space.name} takes one vector a question, not {vector.count}")
    table = np.frombuffer(vector.data, dtype="<f4").reshape(vector.count, vector.dim)
    if not np.isfinite(table).all():
        raise errors.BadRequest("the question's vector holds NaN or infinity")
    return table if space.multi else table[0]


def payload_of(point: Point) -> dict[str, Any]:
    """The payload as stored; keys that are None or empty are left out."""
    p = point.payload
    fields = {
        "content": str(p.content),
        "kind": p.kind.value,
        "seq": p.seq,
        "dirs": list(p.dirs),
        "type": p.type_label,
        "modality": p.modality,
        "size": p.size,
        "page": p.page,
        "t0": p.t0_ms,
        "t1": p.t1_ms,
        "host": p.host,
    }
    return {key: value for key, value in fields.items() if value is not None and value != ""}


def in_order(hits: Iterable[ScoredPoint]) -> list[ScoredPoint]:
    """Best first; equal scores in one order on every engine."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.content.bytes, hit.kind.value, hit.seq))
