"""Throw away and begin again. Names what it destroys; never touches the user's files.

index      vectors, texts and contents; files stay known and are read again
database   all of that, and the files and folders known, the queue, what was measured of the models; the list of watched
           folders and the models pinned by hand stay
all        everything, the list of added folders too (those of the configuration come back by themselves)

What bytes are known to embed to (the vector cache) outlives the first two, so that they cost reading and no inference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

import structlog

from msearchd.aio.sqlite import Database
from msearchd.control.protocol import ResetType
from msearchd.domain.job import Owed, Priority, Step
from msearchd.inference.model_book import ModelBook
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.folders import FolderList
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog
from msearchd.store.vector_cache import VectorCache
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)

#: What claims stand still for meanwhile; other reasons to pause stay. Lifted at every start: a kill may leave it on.
REASON: Final = "reset"
_SENTENCES: Final[dict[ResetType, str]] = {
    "index": "Vectors and texts were thrown away; every known file is read again.",
    "database": "Vectors, texts, files and the queue were thrown away; the watched folders are compared anew.",
    "all": "Everything was thrown away, the list of added folders too; folders of the configuration are compared anew.",
}


class Reset:
    """Runs a reset while the daemon stays up."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        queue: JobQueue,
        store: VectorStore,
        spaces: Spaces,
        folders: FolderList,
        cache: VectorCache | None = None,
        change: ModelChange | None = None,
        models: ModelBook | None = None,
        forget_pins: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._store = store
        self._spaces = spaces
        self._folders = folders
        self._cache = cache
        self._change = change
        self._models = models
        self._forget_pins = forget_pins

    async def run(self, what: ResetType) -> str:
        """Do it; return what was done, as a sentence. Killed in between, the next start compares and repairs."""
        log.warning("reset", what=what)
        await self._queue.pause(REASON)
        try:
            if what != "index":
                await self._folders.leave_all()
            # The catalog first: points that nothing refers to are never shown, and a kill here leaves only those.
            await self._database.write(lambda c: self._forget_in(c, what))
            self._forget_models(what)
            self._spaces.forget()
            if self._change is not None:
                await self._change.forget()
            for space in await self._store.spaces():
                await self._store.drop(space)
            if what == "all" and self._cache is not None:
                await self._cache.clear()
        finally:
            try:
                if what != "index":
                    await self._folders.start()
            finally:
                await self._queue.resume(REASON)
        return _SENTENCES[what]

    def _forget_models(self, what: ResetType) -> None:
        if self._models is not None and what != "index":
            self._models.forget(keeps_pins=what != "all")
        if what == "all":
            self._forget_pins()

    def _forget_in(self, c: sqlite3.Connection, what: ResetType) -> None:
        self._queue.clear_in(c)
        self._catalog.reset_in(c, what)
        if self._models is not None and what != "index":
            self._models.clear_in(c, keeps_pins=what != "all")
        if what == "index":
            # In the same transaction: a scan finds nothing new in these files, so nobody else would ever owe them.
            owed = (Owed(asset, Step.IDENTIFY, priority=Priority.BACKFILL) for asset in self._catalog.all_assets_in(c))
            self._queue.enqueue_in(c, owed)
