"""The daemon as its callers see it: the Control protocol over the stages.

In: requests of the control package. Out: its replies. Each method is a few lines; the work is in the parts it is given.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.control.events import Event, EventBus
from msearchd.control.models import ModelDesk
from msearchd.control.protocol import ResetType
from msearchd.control.replies import (
    ExplainReply,
    FailedItem,
    FailedReply,
    FolderReply,
    FoldersReply,
    HealthCheck,
    HealthReply,
    PauseReply,
    ProcessReply,
    ResetReply,
    RetryReply,
    StatusReply,
    SyncReply,
)
from msearchd.control.requests import SearchRequest
from msearchd.control.search_replies import SearchReply
from msearchd.control.spaces import SpaceDesk
from msearchd.control.types import path_text
from msearchd.control.upkeep_replies import BackupReply, QueuePageReply, VerifyReply
from msearchd.domain.asset import AssetId, AssetState
from msearchd.domain.job import JobId, JobState
from msearchd.jobs.queue import JobQueue, JobRow
from msearchd.orchestrator.backup import Backup
from msearchd.orchestrator.explain import Explainer
from msearchd.orchestrator.folders import FolderList
from msearchd.orchestrator.indexing import Indexing
from msearchd.orchestrator.processing import Processing
from msearchd.orchestrator.reset import Reset
from msearchd.orchestrator.status import StatusPage
from msearchd.orchestrator.verify import Verifier
from msearchd.store.catalog import Catalog
from msearchd.store.vector_store import VectorStore
from msearchd.watch.watcher import Watcher

log = structlog.get_logger(__name__)

#: Rows whose state is set in one transaction.
_STATE_GROUP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the facade is made of."""

    database: Database
    catalog: Catalog
    queue: JobQueue
    store: VectorStore
    watcher: Watcher
    folders: FolderList
    indexing: Indexing
    processing: Processing
    explainer: Explainer
    status: StatusPage
    reset: Reset
    verifier: Verifier
    backup: Backup
    events: EventBus
    search: Callable[[SearchRequest], Awaitable[SearchReply]]
    models: ModelDesk
    spaces: SpaceDesk


class DaemonControl:
    """Implements msearchd.control.Control."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def status(self) -> StatusReply:
        """The whole state."""
        return await self._parts.status.compose()

    async def health(self) -> HealthReply:
        """Database writable, watcher alive, store answering."""
        checks = [await _check("database", self._parts.database.write(lambda c: c.execute("SELECT 1").fetchone()))]
        watch = self._parts.watcher.snapshot()
        checks.append(HealthCheck(name="watch", is_ok=watch.health != "down", reason=watch.advice))
        store = await self._parts.store.health()
        checks.append(HealthCheck(name="store", is_ok=store.is_ok, reason=store.reason))
        return HealthReply(is_ok=all(check.is_ok for check in checks), checks=checks)

    async def search(self, request: SearchRequest) -> SearchReply:
        """Hits, best first."""
        return await self._parts.search(request)

    async def sync(self, *, timeout_s: float) -> SyncReply:
        """Wait until everything that happened before the call is searchable, blocked or failed."""
        started = time.monotonic()
        is_complete = False
        try:
            await self._parts.watcher.sync(deadline_s=timeout_s)
            left_s = max(0.01, timeout_s - (time.monotonic() - started))
            await self._parts.indexing.compared(deadline_s=left_s)  # else vectors lost while it was down are not missed
            left_s = max(0.01, timeout_s - (time.monotonic() - started))
            is_complete = await self._parts.queue.idle_for(None, deadline_s=left_s)
        except errors.RetryLater as error:
            log.info("sync not complete", reason=error.sentence())
        counts = await self._parts.queue.counts()
        return SyncReply(
            is_complete=is_complete,
            took_s=round(time.monotonic() - started, 3),
            pending=counts.ready + counts.running + counts.delayed,
            blocked=counts.blocked,
            failed=counts.failed,
        )

    # -- folders --------------------------------------------------------------------------------------------------------

    async def folders(self) -> FoldersReply:
        """All watched folders."""
        return FoldersReply(folders=await self._parts.status.folders())

    async def add_folder(self, path: bytes) -> FolderReply:
        """Watch a folder, durably."""
        added = await self._parts.folders.add(path)
        shown, took_in = path_text(added.root.path), [path_text(one) for one in added.took_in]
        self._parts.events.publish("folder added", {"path": shown, "took_in": took_in})
        folder = next(one for one in await self._parts.status.folders() if one.path == shown)
        return folder.model_copy(update={"took_in": took_in})

    async def remove_folder(self, path: bytes) -> None:
        """Watch it no more and forget its files."""
        await self._parts.folders.remove(path)
        self._parts.events.publish("folder removed", {"path": path_text(path)})

    # -- process --------------------------------------------------------------------------------------------------------

    async def process(self, paths: Sequence[bytes], *, wait_s: float) -> ProcessReply:
        """Index these before everything else."""
        run = await self._parts.processing.process_file(paths)
        return await self._parts.processing.get_processing_status(run, wait_s=wait_s)

    async def batch_process(self, paths: Sequence[bytes], *, concurrency: int) -> ProcessReply:
        """As process, bounded, answered at once."""
        run = await self._parts.processing.batch_process_files(paths, concurrency=concurrency)
        return await self._parts.processing.get_processing_status(run)

    async def process_status(self, process_id: str, *, wait_s: float) -> ProcessReply:
        """How far it is."""
        return await self._parts.processing.get_processing_status(process_id, wait_s=wait_s)

    # -- why ------------------------------------------------------------------------------------------------------------

    async def explain(self, path: bytes) -> ExplainReply:
        """Why a path is found or not."""
        return await self._parts.explainer.explain(path)

    async def failed(self, *, limit: int, cursor: str) -> FailedReply:
        """Failed and blocked work, newest first."""
        rows = await self._parts.queue.troubles(limit=limit + 1, before=_job_of(cursor))
        items = [item for row in rows[:limit] if (item := await self._failed_item(row)) is not None]
        return FailedReply(items=items, next_cursor=str(rows[limit - 1].id) if len(rows) > limit else None)

    async def _failed_item(self, row: JobRow) -> FailedItem | None:
        asset = await self._parts.catalog.asset(row.asset)
        if asset is None:
            return None
        return FailedItem(
            path=path_text(asset.path),
            state="failed" if row.state is JobState.FAILED else "blocked",
            step=row.step.value,
            target=row.target,
            error=row.error,
            attempts=row.attempts,
            updated_ms=row.updated_ms,
        )

    async def retry(self, path: bytes | None) -> RetryReply:
        """Make failed and blocked jobs ready again."""
        asset: AssetId | None = None
        if path is not None:
            row = await self._parts.catalog.asset_by_path(path)
            if row is None or row.is_gone:
                message = f"{os.fsdecode(path)} is not known"
                raise errors.NotFound(message, hint="ask why with: msearch explain PATH")
            asset = row.id
        failed = [asset] if asset is not None else await self._failed_assets()
        count = await self._parts.queue.retry_failed(asset)
        for start in range(0, len(failed), _STATE_GROUP):
            group = failed[start : start + _STATE_GROUP]
            await self._parts.database.write(lambda c, some=group: self._pending_in(c, some))  # type: ignore[misc]
        for blocked in await self._parts.queue.blocked_reasons():
            count += await self._parts.queue.wake(blocked.cause)
        return RetryReply(retried=count)

    async def _failed_assets(self) -> list[AssetId]:
        found: list[AssetId] = []
        after: JobId | None = None
        while rows := await self._parts.queue.failures(limit=_STATE_GROUP, after=after):
            found += [row.asset for row in rows]
            after = rows[-1].id
        return found

    def _pending_in(self, c: sqlite3.Connection, assets: Sequence[AssetId]) -> None:
        for asset in assets:
            # Seen from the queue: one that failed again meanwhile stays failed.
            if self._parts.queue.open_states_in(c, asset).keys() & {JobState.READY, JobState.RUNNING, JobState.DELAYED}:
                self._parts.catalog.set_state_in(c, asset, AssetState.PENDING)

    # -- upkeep ---------------------------------------------------------------------------------------------------------

    async def queue(self) -> QueuePageReply:
        """The queue in numbers."""
        return await self._parts.status.queue_page()

    async def verify(self, *, is_repair: bool) -> VerifyReply:
        """Whether everything agrees; put right what does not."""
        return await self._parts.verifier.verify(is_repair=is_repair)

    async def backup(self, path: bytes, *, has_vectors: bool) -> BackupReply:
        """A copy of the index in a new folder."""
        copied = await self._parts.backup.run(Path(os.fsdecode(path)), has_vectors=has_vectors)
        return BackupReply(
            path=path_text(path), size_bytes=copied.size_bytes, has_vectors=copied.has_vectors, took_s=copied.took_s
        )

    # -- standing still, starting over -----------------------------------------------------------------------------------

    async def pause(self, reason: str) -> PauseReply:
        """Add a reason to stand still."""
        await self._parts.queue.pause(reason)
        self._parts.events.publish("paused", {"reason": reason})
        return PauseReply(pauses=list(await self._parts.queue.pauses()))

    async def resume(self, reason: str | None) -> PauseReply:
        """Take a reason away, or all."""
        await self._parts.queue.resume(reason)
        self._parts.events.publish("resumed", {"reason": reason})
        return PauseReply(pauses=list(await self._parts.queue.pauses()))

    async def reset(self, reset_type: ResetType) -> ResetReply:
        """Throw away and begin again."""
        sentence = await self._parts.reset.run(reset_type)
        self._parts.events.publish("reset", {"reset_type": reset_type})
        return ResetReply(reset_type=reset_type, sentence=sentence)

    @property
    def models(self) -> ModelDesk:
        """The models on the desk."""
        return self._parts.models

    @property
    def spaces(self) -> SpaceDesk:
        """The vector spaces on the desk."""
        return self._parts.spaces

    def events(self, since: int | None) -> AsyncIterator[Event]:
        """Events after *since* and on."""
        return self._parts.events.stream(since)


async def _check(name: str, trial: Awaitable[object]) -> HealthCheck:
    try:
        async with asyncio.timeout(5):
            await trial
    except (errors.MsearchError, TimeoutError) as error:
        return HealthCheck(name=name, is_ok=False, reason=str(error) or "no answer within 5 s")
    return HealthCheck(name=name, is_ok=True)


def _job_of(cursor: str) -> JobId | None:
    if not cursor:
        return None
    if not cursor.isdecimal() or len(cursor) > 18:
        message = f"{cursor!r} is no cursor of ours"
        raise errors.BadRequest(message, hint="take next_cursor of the page before")
    return JobId(int(cursor))
