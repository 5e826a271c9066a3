"""Vector spaces as the orchestrator meets them: made on first use, flushed and optimised when quiet.

Owns the memory of which space a model key writes to, and the count of what is not flushed yet. Which space answers
questions is model_change's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import ContentId
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.inference.pool import Pool
from msearchd.store.catalog import Catalog
from msearchd.store.catalog.space_book import SpaceBook
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)


class Spaces:
    """One space per model that is in use. *maker_of* says what the spaces of a model are made by."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        pool: Pool,
        store: VectorStore,
        modality_of: Callable[[ModelKey], str] = lambda _: "text",
        maker_of: Callable[[ModelKey], str] = lambda _: "",
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._pool = pool
        self._store = store
        self._book = SpaceBook(database)
        self._modality_of = modality_of
        self._maker_of = maker_of
        self._known: dict[ModelKey, Space] = {}
        self._told: set[tuple[ModelKey, SpaceName]] = set()  # in the log: once a life
        self._making = asyncio.Lock()
        self._unflushed = 0
        self._flushed_at = 0.0

    async def of(self, model: ModelKey) -> Space:
        """The space that *model* writes to, made in the store and the catalog on first use; its model is *model*.

        Raises Misconfigured where the model cannot run, RetryLater where store or worker are restarting.
        """
        if (space := self._known.get(model)) is not None:
            return space
        async with self._making:
            if (space := self._known.get(model)) is not None:
                return space
            known = await self._book.by_target(model)
            if (
                known is None and "@" in model
            ):  # of a model that was replaced (inference.lineage): nothing new is for it
                message = f"the space of {model} was dropped meanwhile"
                raise errors.NotFound(message)
            space = known or await self._pool.space(model)
            await self._store.ensure(space)
            if known is None:
                modality, maker = self._modality_of(model), self._maker_of(model)
                await self._database.write(lambda c: self._book.put_in(c, space, modality=modality, made_by=maker))
            self._known[model] = space
            if (model, space.name) not in self._told:
                self._told.add((model, space.name))
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
            covered = await self._live_intents()
            await self._store.flush()
        except BaseException:
            self._unflushed += count
            raise
        for name, contents in covered.items():
            await self._database.write(lambda c, n=name, ids=contents: self._catalog.settle_intents_in(c, n, ids))  # type: ignore[misc]
        await self._store.optimize()

    async def _live_intents(self) -> dict[SpaceName, list[ContentId]]:
        """Contents whose points are all put, by space."""
        found: dict[SpaceName, list[ContentId]] = {}
        for space, content_id in await self._catalog.open_intents():
            content = await self._catalog.content(content_id)
            if content is None or space in content.live_spaces:
                found.setdefault(space, []).append(content_id)
        return found
