"""Values of points and questions, checked before an engine sees them. Child side: uses numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from msearchd import errors
from msearchd.domain.space import Point, Space, SparseVectors, Vectors
from msearchd.store.vector_store import ScoredPoint, VectorSearch


def checked_rows(space: Space, points: Sequence[Point], vectors: Vectors) -> list[Any]:
    """One float32[dim] array a point; a list of float lists for multi-vectors; (dimensions, weights) for sparse ones.

    Raises BadRequest where the shape is wrong, BadAsset where a number is not finite; nothing may be stored then.
    """
    _check_kind(space, vectors)
    if isinstance(vectors, SparseVectors):
        return _sparse_rows(points, vectors)
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
        raise _not_finite(points[int(np.searchsorted(ends, int(np.argmin(finite)), side="right"))])
    if vectors.rows is None:
        return list(table)
    return [part.tolist() for part in np.split(table, ends[:-1])]


def checked_question(space: Space, search: VectorSearch) -> Any:
    """float32[dim]; float32[rows, dim] for a multi-vector space; (dimensions, weights) for a sparse one.

    Raises BadRequest where shape or numbers are wrong.
    """
    vector = search.vector
    _check_kind(space, vector)
    if isinstance(vector, SparseVectors):
        dims, weights = _entries(vector)
        if vector.rows is None or len(vector.rows) != 1 or not np.isfinite(weights).all() or not _ascend(dims, vector):
            raise errors.BadRequest(
                "the question's sparse vector is not one of ascending dimensions and finite weights"
            )
        return dims.tolist(), weights.tolist()
    if vector.dim != space.dim:
        raise errors.BadRequest(f"space {space.name} has {space.dim} dimensions, the question {vector.dim}")
    if vector.count != 1 and not space.multi:
        raise errors.BadRequest(f"space {space.name} takes one vector a question, not {vector.count}")
    table = np.frombuffer(vector.data, dtype="<f4").reshape(vector.count, vector.dim)
    if not np.isfinite(table).all():
        raise errors.BadRequest("the question's vector holds NaN or infinity")
    return table if space.multi else table[0]


def check_shape(have: Space, wanted: Space) -> None:
    """Raise Misconfigured where the space that is there cannot hold vectors as *wanted* has them.

    How many dimensions a sparse space has is no matter of its files: they hold those that occur.
    """
    if (have.sparse, have.multi) == (wanted.sparse, wanted.multi) and (have.sparse or have.dim == wanted.dim):
        return
    raise errors.Misconfigured(
        f"space {wanted.name} holds {_kind_of(have)}, the model gives {_kind_of(wanted)}",
        key=f"space:{wanted.name}",
        hint="give the model another name, or run: msearch reset index",
    )


def _kind_of(space: Space) -> str:
    if space.sparse:
        return "sparse vectors"
    return f"{'many vectors a point, each ' if space.multi else 'vectors '}of {space.dim} dimensions"


def _check_kind(space: Space, vectors: Vectors) -> None:
    if isinstance(vectors, SparseVectors) is not space.sparse:
        given = "sparse" if isinstance(vectors, SparseVectors) else "dense"
        raise errors.BadRequest(
            f"space {space.name} holds {_kind_of(space)}, and {given} ones were given",
            hint="embed with the model that the space was made for",
        )


def _entries(vectors: Vectors) -> tuple[Any, Any]:
    """Dimensions uint32[count] and weights float32[count] of all entries."""
    table = np.frombuffer(vectors.data, dtype=[("dimension", "<u4"), ("weight", "<f4")])
    return table["dimension"], table["weight"]


def _ascend(dims: Any, vectors: Vectors) -> bool:
    """True where the dimensions of each item ascend and are below `dim`. The engine keeps doubles, and counts both."""
    if not len(dims):
        return True
    rises = np.diff(dims.astype(np.int64)) > 0
    begins = np.cumsum(vectors.rows)[:-1]
    rises[begins[(begins > 0) & (begins < len(dims))] - 1] = True
    return bool(rises.all() and dims.max() < vectors.dim)


def _sparse_rows(points: Sequence[Point], vectors: SparseVectors) -> list[Any]:
    dims, weights = _entries(vectors)
    if vectors.rows is None or len(vectors.rows) != len(points) or not _ascend(dims, vectors):
        raise errors.BadRequest(f"{len(points)} points need a sparse vector each, of ascending dimensions")
    ends = np.cumsum(vectors.rows)
    finite = np.isfinite(weights)
    if not finite.all():
        raise _not_finite(points[int(np.searchsorted(ends, int(np.argmin(finite)), side="right"))])
    parts = zip(np.split(dims, ends[:-1]), np.split(weights, ends[:-1]), strict=True)
    return [(dimensions.tolist(), own.tolist()) for dimensions, own in parts]


def _not_finite(point: Point) -> errors.BadAsset:
    bad = point.payload
    return errors.BadAsset(f"the vector of segment {bad.kind.value} {bad.seq} holds NaN or infinity; it was not stored")


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
