"""What the daemon must be able to do for its callers. The routes need this and nothing else of it.

In: requests and replies of this package. Failures: MsearchError kinds only; api/ turns them into problem+json.
Every method may be called concurrently; cancelled, it leaves nothing half done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

from msearchd.control.events import Event
from msearchd.control.models import ModelDesk
from msearchd.control.replies import (
    ExplainReply,
    FailedReply,
    FolderReply,
    FoldersReply,
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
from msearchd.control.upkeep_replies import BackupReply, QueuePageReply, VerifyReply

ResetType = Literal["all", "database", "index"]


class Control(Protocol):
    """The daemon as its callers see it. Paths are absolute bytes."""

    async def status(self) -> StatusReply:
        """The whole state, from snapshots; quick (no disk beyond SQLite reads)."""
        ...

    async def health(self) -> HealthReply:
        """Whether it does its work: database writable, watcher alive, workers startable. Models may be unloaded."""
        ...

    async def search(self, request: SearchRequest) -> SearchReply:
        """Hits, best first. A list that cannot answer is named in `missing`, it is no error."""
        ...

    async def sync(self, *, timeout_s: float) -> SyncReply:
        """Wait until every file operation that ended before the call is searchable, blocked or failed.

        Not complete within *timeout_s*: a reply that says so, no error.
        """
        ...

    async def folders(self) -> FoldersReply:
        """All watched folders."""
        ...

    async def add_folder(self, path: bytes) -> FolderReply:
        """Watch a folder, durably; adding it twice is adding it once.

        NotFound: it does not exist. BadRequest: not a folder, inside another one, or it holds our data.
        """
        ...

    async def remove_folder(self, path: bytes) -> None:
        """Watch it no more and forget its files. NotFound if it is not watched. The files are not touched."""
        ...

    async def process(self, paths: Sequence[bytes], *, wait_s: float) -> ProcessReply:
        """Index files or folders before everything else; answer when finished, at the latest after *wait_s*.

        NotFound for a path that does not exist; BadRequest for one outside all roots or left out by a rule.
        """
        ...

    async def batch_process(self, paths: Sequence[bytes], *, concurrency: int) -> ProcessReply:
        """As `process`, at most *concurrency* files at once, answered at once; bad paths are failed files of it."""
        ...

    async def process_status(self, process_id: str, *, wait_s: float) -> ProcessReply:
        """How far it is; waits up to *wait_s* for its end. NotFound for an id that is not known (any more)."""
        ...

    async def explain(self, path: bytes) -> ExplainReply:
        """Why a path is found or not; every path has an answer, known or not."""
        ...

    async def failed(self, *, limit: int, cursor: str) -> FailedReply:
        """Failed and blocked work, newest first; a cursor that leads nowhere (any more) gives an empty page."""
        ...

    async def retry(self, path: bytes | None) -> RetryReply:
        """Make failed and blocked jobs ready again: of one file (NotFound if it is not known) or of all."""
        ...

    async def pause(self, reason: str) -> PauseReply:
        """Add a reason to stand still, durably. Searches go on, and so does what somebody waits for."""
        ...

    async def resume(self, reason: str | None) -> PauseReply:
        """Take a reason away, or all."""
        ...

    async def reset(self, reset_type: ResetType) -> ResetReply:
        """Throw away and begin again; the user's files are never touched."""
        ...

    async def queue(self) -> QueuePageReply:
        """The queue in numbers: by step and state, the oldest, the rate, and why what stands still does."""
        ...

    async def verify(self, *, is_repair: bool) -> VerifyReply:
        """Compare database, queue, vectors and folders; with *is_repair* put right what does not agree."""
        ...

    async def backup(self, path: bytes, *, has_vectors: bool) -> BackupReply:
        """Write a consistent copy into the new folder *path* while work goes on; whole or not at all.

        BadRequest: it exists, or its parent does not. RetryLater: it cannot be written.
        """
        ...

    @property
    def models(self) -> ModelDesk:
        """The models: state, load, unload, pin."""
        ...

    @property
    def spaces(self) -> SpaceDesk:
        """The vector spaces: state, cost of a change, switch, roll back, drop."""
        ...

    def events(self, since: int | None) -> AsyncIterator[Event]:
        """Events after id *since* and on; None: from now on. Ends when the daemon stops (EventBus.stream)."""
        ...
