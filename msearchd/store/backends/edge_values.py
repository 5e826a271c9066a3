"""What the embedded engine is told and tells: its configuration of a space, its conditions, its vectors and hits.

In: our values. Out: qdrant_edge's, and back. Pure; Qdrant's server has its own words (collections.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import qdrant_edge as q

from msearchd.domain.media import SegmentKind
from msearchd.domain.space import Space
from msearchd.store.backends import growth
from msearchd.store.vector_store import PointFilter, ScoredPoint

VECTOR: Final = "v"
FOUND: Final = ["content", "kind", "seq"]
_OVERSAMPLING: Final = 2.0
_SEARCH_THREADS: Final = 2
#: A sparse vector takes about as many bytes as a dense one of so many dimensions: 128 entries of 8 bytes.
_SPARSE_DIM: Final = 256

INDEXES: Final[dict[str, Any]] = {
    "content": q.UuidIndexParams(),
    "dirs": q.IntegerIndexParams(lookup=True, range=False),
    "type": q.KeywordIndexParams(),
    "modality": q.KeywordIndexParams(),
    "kind": q.KeywordIndexParams(),
    "size": q.IntegerIndexParams(lookup=False, range=True),
}


def config(space: Space, *, quantize_above: int) -> Any:
    """How a space is laid out, for its creation and for every load."""
    flat = q.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
    sizes = growth.segment_sizes(dim=_SPARSE_DIM if space.sparse else space.dim, quantize_above=quantize_above)
    # 1,000 segments: never merge by number, only by what was deleted.
    optimizers = q.EdgeOptimizersConfig(
        indexing_threshold=sizes.indexing_threshold_kib,
        default_segment_number=1_000,
        max_segment_size=sizes.max_segment_kib,
    )
    if space.sparse:
        # Nothing to quantize: optimizing turns lists that grow in memory, and are made again at each load (15 s for
        # 100k passages), into files. No modifier: what a rare word is worth, the model has learned.
        sparse = q.EdgeSparseVectorParams(memory=q.Memory.Cold)
        return q.EdgeConfig(
            vectors={}, sparse_vectors={VECTOR: sparse}, max_search_threads=_SEARCH_THREADS, optimizers=optimizers
        )
    if space.multi:
        vector = q.EdgeVectorParams(
            size=space.dim,
            distance=q.Distance.Cosine,
            hnsw_config=flat,
            memory=q.Memory.Cold,
            datatype=q.VectorStorageDatatype.Float16,
            multivector_config=q.MultiVectorConfig(q.MultiVectorComparator.MaxSim),
        )
    else:
        turbo = q.TurboQuantQuantizationConfig(bits=q.TurboQuantBitSize.Bits4, memory=q.Memory.Pinned)
        vector = q.EdgeVectorParams(
            size=space.dim,
            distance=q.Distance.Cosine,
            hnsw_config=flat,
            memory=q.Memory.Cold,
            quantization_config=turbo,
        )
    return q.EdgeConfig(vectors={VECTOR: vector}, max_search_threads=_SEARCH_THREADS, optimizers=optimizers)


def edge_filter(conditions: PointFilter) -> Any:
    """The conditions in the engine's words; None for none."""
    must = [
        any_of(field, values)
        for field, values in (
            ("dirs", list(conditions.any_dir)),
            ("type", list(conditions.type_labels)),
            ("modality", list(conditions.modalities)),
            ("content", [str(content) for content in conditions.contents]),
            ("kind", [kind.value for kind in conditions.kinds]),
        )
        if values
    ]
    if conditions.min_size is not None or conditions.max_size is not None:
        must.append(q.FieldCondition("size", range=q.RangeFloat(gte=conditions.min_size, lte=conditions.max_size)))
    return q.Filter(must=must) if must else None


def any_of(field: str, values: Sequence[Any]) -> Any:
    """The field has one of *values* (at least one)."""
    match = q.MatchValue(values[0]) if len(values) == 1 else q.MatchAny(list(values))
    return q.FieldCondition(field, match=match)


def vector(space: Space, row: Any) -> Any:
    """A vector that was checked (values.py) as the engine takes it."""
    return q.SparseVector(*row) if space.sparse else row


def params(space: Space, *, is_exact: bool) -> Any:
    """How a question is answered: candidates by the quantized vectors, unless it is to be exact."""
    if space.sparse:
        return q.SearchParams(exact=is_exact)
    if is_exact:
        return q.SearchParams(exact=True, quantization=q.QuantizationSearchParams(ignore=True))
    return q.SearchParams(quantization=q.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING))


def scored(payload: dict[str, Any], score: float) -> ScoredPoint:
    """A hit, which must come with FOUND."""
    return ScoredPoint(UUID(payload["content"]), SegmentKind(payload["kind"]), payload["seq"], float(score))
