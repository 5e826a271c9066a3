"""Tells which disk a root is on, and which disks are mounted in it, from what was there before.

    mount table ──▶ inner mounts of each root ──▶ came: compare, went: offline subtree
    root opened ──▶ the same disk? ──no──▶ a sample of what is known ──not there──▶ offline

In: opened roots, the remembered marks. Out: hints and scans, marks on disk. One per watcher, used by its one task.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from msearchd.domain.asset import RootId
from msearchd.watch import mounts, paths
from msearchd.watch.inner_mounts import Identity, InnerMounts
from msearchd.watch.lane import DiskLane
from msearchd.watch.marks import MAX_CURSOR, Marks
from msearchd.watch.ports import KnownTree
from msearchd.watch.sample import is_there, sample
from msearchd.watch.watched import WatchedRoot

log = structlog.get_logger(__name__)

#: For a look at all mount points of a root: a share that needs longer is as good as gone.
_LOOK_DEADLINE_S: Final = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """What is mounted below a root now."""

    identities: dict[bytes, Identity]
    ids: dict[bytes, str]


class DiskKeeper:
    """See the module. `changed` is called on the loop when the mount table changes."""

    def __init__(self, known: KnownTree, lane: DiskLane, marks_file: Path, *, changed: Callable[[], None]) -> None:
        self._known, self._lane = known, lane
        self._marks_file = marks_file
        self._marks: Marks | None = None
        self._changed = changed
        self._events: mounts.MountChanges | None = None
        self._pace = mounts.Pace()
        self._rest: asyncio.TimerHandle | None = None
        self._is_stale = False  # the table changed in the rest
        self._looked: set[RootId] = set()

    async def start(self) -> None:
        """Read what is remembered, and listen to the mount table. Called again it does nothing."""
        if self._marks is not None:
            return
        self._marks = await asyncio.to_thread(Marks, self._marks_file)
        self._events = mounts.MountChanges.open()
        if self._events is not None:
            asyncio.get_running_loop().add_reader(self._events.fileno(), self._on_change)

    async def close(self) -> None:
        """Stop listening; write what is not on disk yet."""
        if self._rest is not None:
            self._rest.cancel()
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        await self.save()

    async def save(self) -> None:
        """Write the marks if they changed."""
        if self._marks is not None and self._marks.is_dirty:
            await asyncio.to_thread(self._marks.save)

    # -- roots ---------------------------------------------------------------------------------------------------------

    async def strange_disk(self, watched: WatchedRoot, file_system: str) -> str:
        """Why the disk at the root's path is not believed to be the root's; empty if it is.

        Another file system that holds what is known (a copy on a new disk, a device that got another number) is the root.
        """
        mark = self._require().of(watched.root.id, watched.root.path)
        watched.context.mounts = InnerMounts(dict(mark.inner))
        self._looked.discard(watched.root.id)
        is_same = not mark.file_system or not file_system or mark.file_system == file_system
        if is_same or watched.accepts_losses or await self._holds_what_is_known(watched, b""):
            return ""
        return (
            f"another disk is mounted there ({file_system}, it was {mark.file_system}), and it does not hold what is known."
            " Mount the right one, or, if this one is meant, type: msearch process FOLDER"
        )

    def believed(self, watched: WatchedRoot) -> None:
        """All of the root was compared and believed: its disk is the right one."""
        identity = watched.context.identity
        self._update(
            watched, file_system=watched.file_system, inode=identity.inode if identity is not None else 0, cursor=()
        )

    def cursor(self, watched: WatchedRoot) -> tuple[bytes, ...]:
        """Where a whole scan was cut off; empty if none was."""
        return self._require().of(watched.root.id, watched.root.path).cursor

    def note_cursor(self, watched: WatchedRoot, folders: list[bytes]) -> None:
        """Remember where a whole scan stands."""
        self._update(watched, cursor=tuple(folders) if len(folders) <= MAX_CURSOR else ())

    def forget(self, root: RootId) -> None:
        """Not watched any more."""
        self._looked.discard(root)
        if self._marks is not None:
            self._marks.forget(root)

    # -- disks inside --------------------------------------------------------------------------------------------------

    async def look_inside(self, watched: WatchedRoot) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """(folders to compare because a disk came, folders to look at because one went); both relative to the root.

        Costs nothing unless the mount table changed. Raises RootUnreadable where a mounted share does not answer.
        """
        if watched.root.id in self._looked:
            return (), ()
        context = watched.context
        # Before the look: a disk that comes or goes during it takes this back, and is looked at once more.
        self._looked.add(watched.root.id)
        try:
            found = await self._lane.run(context, lambda: _look(watched), deadline_s=_LOOK_DEADLINE_S)
        except BaseException:
            self._looked.discard(watched.root.id)
            raise
        belongs = context.mounts.belongs
        strange = set()
        for point, file_system in found.ids.items():
            is_same = belongs.get(point, file_system) == file_system
            if not (is_same or watched.accepts_losses or await self._holds_what_is_known(watched, point)):
                strange.add(point)
        turned = context.mounts.turn(found.identities, strange=frozenset(strange), ids=found.ids)
        for point, reason in context.mounts.away.items():
            log.warning("part of a folder is offline", root=watched.root.id, path=os.fsdecode(point), reason=reason)
        self._update(watched, inner=context.mounts.remembered())
        # Refused while the disk was away for a moment that no look has seen: asked for again.
        refused = [point for point in found.ids if any(paths.is_below(path, point) for path in watched.unreadable)]
        return tuple(dict.fromkeys([*turned.came, *refused])), turned.went

    def forget_away(self, watched: WatchedRoot) -> None:
        """A person said that the root is as it stands now: disks that are away do not belong to it any more."""
        if watched.context.mounts.forget_away():
            self._update(watched, inner=watched.context.mounts.remembered())
        self._looked.discard(watched.root.id)

    def _on_change(self) -> None:
        """The table changed. The reader stays: to take it out and put it back could swallow a change in between."""
        if self._events is not None:
            self._events.take()
        if self._rest is None:
            self._tell()
        else:
            self._is_stale = True

    def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        self._is_stale = False
        self._rest = loop.call_later(self._pace.rest_after(loop.time()), self._rested)
        self._looked.clear()
        self._changed()

    def _rested(self) -> None:
        self._rest = None
        if self._is_stale:
            self._tell()

    # -- both ----------------------------------------------------------------------------------------------------------

    async def _holds_what_is_known(self, watched: WatchedRoot, below: bytes) -> bool:
        files = await sample(self._known, watched.root.id, below)
        if not files:
            return True
        return await self._lane.run(watched.context, lambda: is_there(watched.root.path, files))

    def _update(self, watched: WatchedRoot, **changes: object) -> None:
        marks, root = self._require(), watched.root
        marks.put(root.id, dataclasses.replace(marks.of(root.id, root.path), **changes))  # type: ignore[arg-type]

    def _require(self) -> Marks:
        assert self._marks is not None, "start() comes first"  # noqa: S101 - a bug of ours, not of the world
        return self._marks


def _look(watched: WatchedRoot) -> _Found:
    """In the thread: the mount points below a root that no rule leaves out."""
    base = os.path.realpath(watched.root.path)
    identities: dict[bytes, Identity] = {}
    ids: dict[bytes, str] = {}
    for point in mounts.points_below(mounts.read_table(), base):
        if watched.context.rules.check_path(point, is_dir=True) is not None:
            continue
        with contextlib.suppress(OSError):  # it went, or is not ours to see: as good as not mounted
            full = paths.join(base, point)
            status = os.lstat(full)
            ids[point] = mounts.file_system_id(full)
            identities[point] = (status.st_dev, status.st_ino)
    return _Found(identities, ids)
