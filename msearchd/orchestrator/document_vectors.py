"""Vectors of what is indexed: from the cache where they are known, from the model where they are not.

In: samples, and the key of each. Out: Vectors in their order, and a cache that knows them from now on, before the points
are live: killed in between, the next life computes nothing twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from msearchd.domain.sample import Sample
from msearchd.domain.space import SPARSE_ROW_BYTES, ModelKey, Space, SparseVectors, Vectors
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.store.vector_cache import VectorCache

#: What a model does to a sample, as a name; "" where that is not known.
Encoder = Callable[[ModelKey], Awaitable[str]]


class DocumentVectors:
    """Shared by all embed steps; without a cache it is the pool. *encoder* names what the cache knows vectors by."""

    def __init__(self, pool: Pool, cache: VectorCache | None = None, *, encoder: Encoder | None = None) -> None:
        self._pool = pool
        self._cache = cache
        self._encoder = encoder

    async def known(self, keys: Sequence[bytes], *, space: Space) -> list[bytes | None]:
        """The rows of each key as bytes (float32[rows, space.dim], or entries); None: to be computed, so decoded."""
        if self._cache is None:
            return [None] * len(keys)
        return await self._cache.get(await self._seen_as(space), keys)

    async def of(self, samples: Sequence[Sample], keys: Sequence[bytes], *, space: Space, deadline_s: float) -> Vectors:
        """Vectors of *samples*, all of one kind, of the kind that *space* holds. Raises as Pool.embed."""
        found = await self.known(keys, space=space)
        missing = [place for place, known in enumerate(found) if known is None]
        if missing:
            vectors = await self._pool.embed(
                [samples[place] for place in missing],
                model=space.model,
                role=Role.DOCUMENT,
                lane=Lane.BULK,
                deadline_s=deadline_s,
            )
            if self._cache is not None:
                await self._cache.put(await self._seen_as(space), [keys[place] for place in missing], vectors)
            if len(missing) == len(samples):
                return vectors
            for place, own in zip(missing, _each(vectors), strict=True):
                found[place] = own
        return together([own for own in found if own is not None], space=space)

    async def _seen_as(self, space: Space) -> Space:
        """As the cache knows it: passages that were cut otherwise and read the same have the same vectors."""
        fingerprint = "" if self._encoder is None else await self._encoder(space.model)
        return replace(space, fingerprint=fingerprint) if fingerprint else space


def together(each: Sequence[bytes], *, space: Space) -> Vectors:
    """One Vectors of the rows of each sample."""
    if space.sparse:
        entries = tuple(len(own) // SPARSE_ROW_BYTES for own in each)
        return SparseVectors(b"".join(each), sum(entries), space.dim, entries)
    counts = tuple(len(own) // (space.dim * 4) for own in each)
    return Vectors(b"".join(each), sum(counts), space.dim, rows=counts if space.multi else None)


def _each(vectors: Vectors) -> list[bytes]:
    found, at = [], 0
    for count in (1,) * vectors.count if vectors.rows is None else vectors.rows:
        end = at + count * vectors.row_bytes
        found.append(bytes(vectors.data[at:end]))
        at = end
    return found
