"""From changes to what is owed: the sink of the watch stage.

In: changes, in order, possibly repeated. Out: asset rows and job rows, both in one transaction, durable on return.
Never reads a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId, AssetState, RootId, RootState, StatFingerprint
from msearchd.domain.job import JobState, Owed, Priority, Step
from msearchd.jobs.queue import JobQueue
from msearchd.store.catalog import Catalog
from msearchd.watch import changes

log = structlog.get_logger(__name__)

#: Changes in one transaction: about 10 ms of work, so that a claim behind it waits no longer.
_GROUP: Final = 200
#: Assets of one vanished folder hidden per transaction; a removed tree of a million files takes many of them.
_HIDE_GROUP: Final = 2000
#: Steps that look at what the file holds when they run, and not at what it held when they were owed.
_OUTLIVE_BYTES: Final = (Step.IDENTIFY, Step.RELOCATE)


def root_cause(root: int) -> str:
    """The cause that jobs of an offline root are blocked on."""
    return f"root:{root}"


class Intake:
    """Writes what changed and what is owed for it. Implements watch.ports.ChangeSink."""

    def __init__(self, database: Database, catalog: Catalog, queue: JobQueue) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue

    async def apply(self, batch: Sequence[changes.Change]) -> None:
        """Make *batch* durable: what changed is owed, what went is hidden, what moved is found at its new place."""
        small: list[changes.Change] = []
        for change in batch:
            if isinstance(change, changes.TreeGone | changes.TreeMoved | changes.RootWent):
                await self._apply_small(small)
                small = []
                await self._apply_large(change)
            else:
                small.append(change)
                if len(small) >= _GROUP:
                    await self._apply_small(small)
                    small = []
        await self._apply_small(small)

    async def _apply_small(self, group: Sequence[changes.Change]) -> None:
        if not group:
            return
        wanted = tuple(group)

        def write(c: sqlite3.Connection) -> None:
            owed: list[Owed] = []
            for change in wanted:
                owed += self._apply_one(c, change)
            self._queue.enqueue_in(c, owed)

        await self._database.write(write)
        self._queue.notify()

    def _apply_one(self, c: sqlite3.Connection, change: changes.Change) -> list[Owed]:
        match change:
            case changes.FileSeen():
                priority = Priority.LIVE if change.is_live else Priority.BACKFILL
                return self._see_file(c, change.root, change.path, change.fingerprint, priority)
            case changes.FileTouched():
                return self._touch_file(c, change)
            case changes.FileLeft():
                asset = self._catalog.see_file_in(c, change.root, change.path, change.fingerprint)
                self._catalog.unlink_content_in(c, asset)
                self._queue.drop_in(c, asset)
                self._catalog.set_state_in(c, asset, AssetState.SKIPPED, change.reason)
            case changes.FileGone():
                gone = self._catalog.hide_file_in(c, change.root, change.path)
                if gone is not None:
                    self._queue.drop_in(c, gone)
            case changes.FileMoved():
                return self._move_file(c, change)
            case changes.DirScanned():
                self._catalog.scanned_dir_in(
                    c,
                    change.root,
                    change.path,
                    inode=change.inode,
                    mtime_ns=change.mtime_ns,
                    ctime_ns=change.ctime_ns,
                    signature=change.signature,
                    scanned_ms=change.scanned_ms,
                )
            case _:
                message = f"{type(change).__name__} is not a change of one file"
                raise TypeError(message)
        return []

    def _see_file(
        self, c: sqlite3.Connection, root: RootId, path: bytes, fingerprint: StatFingerprint, priority: Priority
    ) -> list[Owed]:
        asset = self._catalog.see_file_in(c, root, path, fingerprint)
        if self._queue.open_states_in(c, asset):
            # Steps of the bytes before: they would read the new ones, whose fingerprint the file has now, and keep them
            # under the old content's name. IDENTIFY plans again what is owed.
            self._queue.drop_in(c, asset, keep=_OUTLIVE_BYTES)
        self._catalog.set_state_in(c, asset, AssetState.PENDING)
        return [Owed(asset, Step.IDENTIFY, priority=priority)]

    def _touch_file(self, c: sqlite3.Connection, change: changes.FileTouched) -> list[Owed]:
        asset = self._catalog.touch_file_in(c, change.root, change.path, change.fingerprint)
        if asset is None or self._catalog.state_in(c, asset) is not AssetState.FAILED:
            return []
        # Its permissions may have been what was wrong.
        self._catalog.set_state_in(c, asset, AssetState.PENDING)
        return [Owed(asset, Step.IDENTIFY, priority=Priority.LIVE)]

    def _move_file(self, c: sqlite3.Connection, change: changes.FileMoved) -> list[Owed]:
        asset = self._catalog.move_file_in(c, change.root, change.old, change.new_root, change.new, change.fingerprint)
        if asset is None:  # we never knew it under its old name: it is new
            return self._see_file(c, change.new_root, change.new, change.fingerprint, Priority.LIVE)
        return [Owed(asset, Step.RELOCATE, priority=Priority.LIVE), *self._not_found_before(c, [asset])]

    def _not_found_before(self, c: sqlite3.Connection, moved: Iterable[AssetId]) -> list[Owed]:
        """What may be delayed because its file was not at the old place: it is at the new one, nothing is to be waited for."""
        return [
            Owed(asset, Step.IDENTIFY, priority=Priority.LIVE)
            for asset in moved
            if JobState.DELAYED in self._queue.open_states_in(c, asset)
        ]

    async def _apply_large(self, change: changes.Change) -> None:
        match change:
            case changes.TreeGone():
                await self._hide_tree(change)
            case changes.TreeMoved():
                await self._move_tree(change)
            case changes.RootWent():
                await self._database.write(
                    lambda c: self._catalog.set_root_state_in(c, change.root, change.state, change.reason)
                )
                if change.state is RootState.ONLINE:
                    await self._queue.wake(root_cause(change.root))

    async def _hide_tree(self, change: changes.TreeGone) -> None:
        def hide(c: sqlite3.Connection) -> int:
            gone = self._catalog.hide_tree_in(c, change.root, change.path, limit=_HIDE_GROUP)
            for asset in gone:
                self._queue.drop_in(c, asset)
            return len(gone)

        while await self._database.write(hide):
            pass

    async def _move_tree(self, change: changes.TreeMoved) -> None:
        # One transaction even for a large tree: killed between the move and the jobs, points would keep the folder
        # list of the old place and a search by folder would miss them. 100k rows take about a second.
        def move(c: sqlite3.Connection) -> None:
            moved = self._catalog.move_tree_in(c, change.root, change.old, change.new_root, change.new)
            if moved is None:
                return
            if not moved.is_rename:
                self._queue.enqueue_in(
                    c, (Owed(asset, Step.RELOCATE) for asset in self._catalog.assets_below_in(c, moved.dir_id))
                )
            if self._queue.has_delayed_in(c):
                below = self._catalog.assets_below_in(c, moved.dir_id)
                self._queue.enqueue_in(c, self._not_found_before(c, below))

        await self._database.write(move)
        self._queue.notify()
