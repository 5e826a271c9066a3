"""Do database, text indexes, queue, vectors and folders agree? Asked by a person, answered with counts, repaired if they say so.

In: the stages. Out: a VerifyReply. Without repair nothing changes but what a scan takes up anyway: a file that is new is
owed, one that went is hidden. With it, what does not agree is deleted, owed again or built anew, never guessed.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.control.types import path_text
from msearchd.control.upkeep_replies import FolderCheck, SpaceCheck, VerifyReply
from msearchd.domain.asset import AssetId, AssetState, Root, RootState
from msearchd.domain.space import SpaceName
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.recovery import Recovery
from msearchd.store.catalog import Catalog, text_indexes
from msearchd.store.vector_store import VectorStore
from msearchd.watch.status import ScanSummary
from msearchd.watch.watcher import Watcher

log = structlog.get_logger(__name__)

#: Rows looked at in one visit: about 20 ms.
_GROUP: Final = 1000
#: How often a comparison that is not over is asked whether the database is what holds it up.
_PATIENCE_S: Final = 5.0


class Verifier:
    """One per daemon; owns nothing."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        queue: JobQueue,
        store: VectorStore,
        watcher: Watcher,
        recovery: Recovery,
        arrears: Arrears,
        begin_anew: Callable[[str], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._store = store
        self._watcher = watcher
        self._recovery = recovery
        self._arrears = arrears
        self._begin_anew = begin_anew

    async def verify(self, *, is_repair: bool) -> VerifyReply:
        """Look at all of it; with *is_repair* put it right. Raises RetryLater where the store or the disk is down.

        A database that no repair of its indexes heals is set aside and made anew from the files: the reply says so.
        """
        began = time.monotonic()
        # The folders first: what they bring is then part of what the others are asked about.
        folders = [await self._folder(root) for root in await self._catalog.roots()]
        damage = await self._database.problems(is_quick=False)
        sentences: list[str] = []
        if damage and is_repair:
            damage, sentences = await self._heal(damage)
            if damage:
                self._begin_anew(damage[0])
                return _reply(began, database=damage, folders=folders, sentences=sentences, is_repaired=True)
        astray = await self._text_indexes(is_repair=is_repair)
        orphaned, idle = await self._jobs_without_file(), await self._files_without_job()
        spaces = [await self._space(name, is_repair=is_repair) for name in await self._all_spaces()]
        reply = _reply(
            began,
            database=damage,
            astray=astray,
            jobs_without_file=len(orphaned),
            files_without_job=idle,
            spaces=spaces,
            folders=folders,
            sentences=sentences,
        )
        if is_repair and not reply.is_clean:
            await self._settle(orphaned)
            reply = reply.model_copy(update={"is_repaired": True})
        log.info("verified", is_clean=reply.is_clean, is_repaired=reply.is_repaired, took_s=reply.took_s)
        return reply

    # -- the file --------------------------------------------------------------------------------------------------------

    async def _heal(self, damage: list[str]) -> tuple[list[str], list[str]]:
        """(What is still wrong after the indexes were built anew, sentences)."""
        log.warning("database damaged", problems=damage[:5])
        try:
            await self._database.write(lambda c: c.execute("REINDEX").rowcount)
            left = await self._database.problems(is_quick=False)
        except errors.MsearchError as error:
            left = [error.sentence()]
        if not left:
            return [], ["indexes of the database were damaged and have been built anew"]
        return left, ["the database is damaged beyond repair: it is set aside and made anew from your files now"]

    async def _text_indexes(self, *, is_repair: bool) -> list[str]:
        """What is wrong with the indexes of words and names; with *is_repair* those are built anew, each in one piece."""
        found = await self._database.write(text_indexes.problems_in)
        for index in found if is_repair else ():
            log.warning("text index built anew", index=index, reason=found[index])
            await self._database.write(partial(text_indexes.rebuild_in, index=index))
        return list(found.values())

    # -- the queue -------------------------------------------------------------------------------------------------------

    async def _jobs_without_file(self) -> list[AssetId]:
        found: list[AssetId] = []
        after = AssetId(0)
        while page := await self._database.read(partial(self._owed_in, after=after)):
            after = page[-1][0]
            found += [asset for asset, is_known in page if not is_known]
        return found

    def _owed_in(self, c: sqlite3.Connection, after: AssetId) -> list[tuple[AssetId, bool]]:
        owed = self._queue.owed_assets_in(c, after, limit=_GROUP)
        return [(asset, self._catalog.state_in(c, asset) is not None) for asset in owed]

    async def _files_without_job(self) -> int:
        found, after = 0, AssetId(0)
        while batch := await self._catalog.pending_assets(after, limit=_GROUP):
            after = batch[-1]
            found += await self._database.read(partial(self._idle_in, assets=batch))
        return found

    def _idle_in(self, c: sqlite3.Connection, assets: list[AssetId]) -> int:
        # Seen in one snapshot: a job that ended since the list was read took the state with it.
        return sum(
            self._catalog.state_in(c, asset) is AssetState.PENDING and not self._queue.open_states_in(c, asset)
            for asset in assets
        )

    async def _settle(self, orphaned: list[AssetId]) -> None:
        for start in range(0, len(orphaned), _GROUP):
            group = orphaned[start : start + _GROUP]
            await self._database.write(lambda c, some=group: self._drop_in(c, some))  # type: ignore[misc]
        await self._arrears.settle()
        self._queue.notify()

    def _drop_in(self, c: sqlite3.Connection, assets: list[AssetId]) -> None:
        for asset in assets:
            if self._catalog.state_in(c, asset) is None:
                self._queue.drop_in(c, asset)

    # -- vectors ---------------------------------------------------------------------------------------------------------

    async def _all_spaces(self) -> list[SpaceName]:
        return list(dict.fromkeys([*(s.name for s in await self._catalog.spaces()), *await self._store.spaces()]))

    async def _space(self, name: SpaceName, *, is_repair: bool) -> SpaceCheck:
        space = next((space for space in await self._catalog.spaces() if space.name == name), None)
        if space is None:  # left over: nobody will ever ask it
            points = await self._store.count(name)
            if is_repair:
                await self._store.drop(name)
            return SpaceCheck(space=name, points_expected=0, points_found=points, orphans=max(1, points))
        await self._store.ensure(space)
        report = await (self._recovery.compare(space) if is_repair else self._recovery.look(space))
        return SpaceCheck(
            space=name,
            points_expected=report.points_expected,
            points_found=report.points_found,
            orphans=report.orphans,
            missing=report.missing,
        )

    # -- folders ---------------------------------------------------------------------------------------------------------

    async def _folder(self, root: Root) -> FolderCheck:
        if root.state is RootState.OFFLINE:
            return FolderCheck(path=path_text(root.path), is_checked=False, reason=root.reason or "offline")
        try:
            found = await self._scanned(root)
        except (errors.RetryLater, errors.NotFound) as error:
            return FolderCheck(path=path_text(root.path), is_checked=False, reason=error.sentence())
        return FolderCheck(
            path=path_text(root.path),
            is_checked=True,
            reason=found.doubt,
            files=found.files,
            changes=found.changes,
            vanished=found.vanished,
        )

    async def _scanned(self, root: Root) -> ScanSummary:
        """Compare *root* now. RetryLater with the database's words where nothing can be written: a scan would wait on."""
        scanning = asyncio.ensure_future(self._watcher.scan_now(root.id))
        try:
            while True:
                await asyncio.wait({scanning}, timeout=_PATIENCE_S)
                if scanning.done():
                    return await scanning
                if trouble := self._database.trouble:
                    raise errors.RetryLater(trouble)
        finally:
            scanning.cancel()


def _reply(
    began: float,
    *,
    database: list[str],
    folders: list[FolderCheck],
    spaces: list[SpaceCheck] | None = None,
    jobs_without_file: int = 0,
    files_without_job: int = 0,
    astray: list[str] | None = None,
    sentences: list[str] | None = None,
    is_repaired: bool = False,
) -> VerifyReply:
    told = [*(sentences or ())] or [f"the database file is damaged: {problem}" for problem in database[:5]]
    told += astray or []
    told += [f"{jobs_without_file:,} jobs belong to no known file"] if jobs_without_file else []
    told += [f"{files_without_job:,} files are pending and nothing is owed for them"] if files_without_job else []
    for space in spaces or ():
        told += [f"{space.space}: vectors of {space.missing:,} contents are missing"] if space.missing else []
        told += [f"{space.space}: vectors of {space.orphans:,} contents are left over"] if space.orphans else []
    return VerifyReply(
        is_clean=not told,
        is_repaired=is_repaired,
        is_complete=all(folder.is_checked and not folder.reason for folder in folders),
        database=database,
        text_indexes=astray or [],
        jobs_without_file=jobs_without_file,
        files_without_job=files_without_job,
        spaces=spaces or [],
        folders=folders,
        sentences=told,
        took_s=round(time.monotonic() - began, 3),
    )
