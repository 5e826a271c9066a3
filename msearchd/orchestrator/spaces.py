"""Vector spaces as the orchestrator meets them: made on first use, flushed and optimised when quiet.

Owns the memory of which space a model writes to, and the count of what is not flushed yet.
"""

from __future__ import annotations

import asyncio

import structlog

from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.inference.pool import Pool
from msearchd.store.catalog import Catalog
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)


class Spaces:
    """One space per text model that is in use."""

    def __init__(self, *, catalog: Catalog, pool: Pool, store: VectorStore) -> None:
        self._catalog = catalog
        self._pool = pool
        self._store = store
        self._known: dict[ModelKey, Space] = {}
        self._making = asyncio.Lock()
        self._unflushed = 0
        self._flushed_at = 0.0

    async def of(self, model: ModelKey) -> Space:
        """The space that *model* writes to, made in the store and the catalog on first use.

        Raises Misconfigured where the model cannot run, RetryLater where store or worker are restarting.
        """
        if (space := self._known.get(model)) is not None:
            return space
        async with self._making:
            if (space := self._known.get(model)) is not None:
                return space
            space = await self._pool.space(model)
            await self._store.ensure(space)
            await self._catalog.put_space(space)
            self._known[model] = space
            log.info("space ready", space=space.name, model=model, dim=space.dim)
            return space

    def forget(self, space: SpaceName | None = None) -> None:
        """Make the space again at its next use (it was dropped)."""
        self._known = {k: v for k, v in self._known.items() if space is not None and v.name != space}

    def note_upserts(self, points: int) -> None:
        """Remember that *points* are in the store and not flushed."""
        self._unflushed += points

    @property
    def unflushed(self) -> int:
        """Points upserted since the last flush."""
        return self._unflushed

    async def settle(self) -> None:
        """Flush the store, clear the intents of what is live, let the store merge and quantize. Cheap if nothing is new."""
        if self._unflushed == 0:
            return
        count, self._unflushed = self._unflushed, 0
        try:
            # Read before the flush: an intent written while it runs is not covered by it.
            covered = await self._catalog.live_intents()
            await self._store.flush()
        except BaseException:
            self._unflushed += count
            raise
        await self._catalog.settle_intents(covered)
        await self._store.optimize()
