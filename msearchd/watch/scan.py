"""Compare a whole tree with what is known of it: one streaming walk, in slices.

In: a root and where to begin. Out: changes, as they are found; at the end what vanished, if it may be believed. Memory:
the walk's stack, the folders of one slice, and what vanished (bounded). Never blocks the loop: a slice of some
20 ms runs in a thread, then the loop is free. May be dropped after any slice and begun again: what was compared stays.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from msearchd.domain.asset import KnownDir, RootId, StatFingerprint
from msearchd.watch import hints, paths
from msearchd.watch.attach import attach
from msearchd.watch.changes import DirScanned, FileMoved, TreeMoved
from msearchd.watch.comparer import Comparer, Held, Manner, is_stamp_safe, is_trusted, stamp_for, stamp_of
from msearchd.watch.disk import NotListed, RootContext, RootUnreadable, Walk
from msearchd.watch.listing import Listing, Unchanged
from msearchd.watch.plan import Found, in_order, move_key
from msearchd.watch.ports import ChangeSink, KnownTree, ManyDirectories
from msearchd.watch.read_ahead import ReadAhead, blocks_read
from msearchd.watch.resolver import OnDisk, Resolved
from msearchd.watch.settler import Settled
from msearchd.watch.status import ScanSummary

#: "stamps": phase 1 of a start, looks at the times of known folders only; "quick": lists those that changed; "attach":
#: enters every known folder, so that its source watches it, and looks at the times once more; "start": phase 2, the whole
#: tree, finds edits in place; "verify": the same by the clock; "live": below a new folder.
ScanKind = Literal["live", "stamps", "quick", "attach", "repair", "start", "verify"]

_SLICE_S: Final = 0.02
#: Each slice costs some 0.2 ms around it: where nothing changed it may be longer, as nothing is left to do afterwards.
_UNCHANGED_SLICE_S: Final = 0.04
_SLICE_ENTRIES: Final = 5000
_SLICE_DIRS: Final = 512
_MAX_QUICK_DIRS: Final = 20_000
_MAX_FOLDERS: Final = 5000  # where one walk begins; 1 MB


class ScanJob:
    """One walk. `step` until it says True; then `vanished` holds what is missing, for the watcher to judge."""

    def __init__(self, context: RootContext, *, path: bytes, folders: tuple[bytes, ...], kind: ScanKind) -> None:
        self.context = context
        self.path = path
        self.kind: ScanKind = kind
        self.is_forced = False
        self.accepts_losses = False
        #: Known folders still to be looked at, and those found changed; phase 1 only.
        self.stamps: AsyncIterator[list[tuple[bytes, KnownDir]]] | None = None
        self.changed_dirs: list[bytes] = []
        self.done: asyncio.Future[ScanSummary] = asyncio.get_running_loop().create_future()
        self.folders = folders
        self.restart()

    def restart(self) -> None:
        """Begin again from the top: after a step that failed halfway."""
        self.stack: list[bytes] = list(reversed(self.folders))
        self.stamps, self.changed_dirs = None, []
        self.entered: set[bytes] = set()
        self.waits_for_disk = False
        self.vanished = Held()
        self.dirs = self.files = self.changes = 0
        self.known_files = 0
        self.is_root_empty = False
        self.began_at: float | None = None
        self.slice_dirs = 32

    @property
    def root(self) -> RootId:
        """Whose tree."""
        return self.context.root.id

    @property
    def has_begun(self) -> bool:
        """True once a slice has run."""
        return self.began_at is not None

    def add(self, folders: tuple[bytes, ...]) -> None:
        """Walk these too; only before it has begun. Too many of them become the folder that holds them all."""
        self.folders += folders
        if len(self.folders) > _MAX_FOLDERS:
            self.folders, self.kind = (paths.common_folder([folder + b"/" for folder in self.folders]),), "repair"
        self.stack = list(reversed(self.folders))

    @property
    def is_whole_root(self) -> bool:
        """True if nothing of the root is left out."""
        return self.folders == (b"",) and self.kind not in {"stamps", "quick", "attach"}

    def __repr__(self) -> str:
        return f"<ScanJob {self.kind} of root {self.root} {self.path!r}: {self.dirs} dirs, {len(self.stack)} to go>"

    def summary(self, *, doubt: str = "") -> ScanSummary:
        """What it came to so far."""
        took = time.monotonic() - self.began_at if self.began_at is not None else 0.0
        return ScanSummary(
            self.root, self.path, self.dirs, self.files, self.changes,
            len(self.vanished.files) + len(self.vanished.dirs) + self.vanished.dropped, took, doubt,
        )  # fmt: skip


class Scanner:
    """Runs the steps of scan jobs. One per watcher; never two steps at once."""

    def __init__(self, known: KnownTree, sink: ChangeSink, comparer: Comparer, on_disk: OnDisk) -> None:
        self._known = known
        self._sink = sink
        self._comparer = comparer
        self._on_disk = on_disk

    async def step(self, job: ScanJob, out: Resolved) -> bool:
        """Read and compare one slice; True once the walk is over. Raises RootUnreadable, and what the sink raises."""
        if job.began_at is None:
            job.began_at = time.monotonic()
            job.known_files = await self._known.count_files(job.root)
        if job.kind in {"stamps", "attach"}:
            return await self._step_stamps(job)
        if not job.stack:
            return True
        known = await self._known_of(job.root, job.stack[-job.slice_dirs :])
        slice_ = await self._on_disk(job.context, functools.partial(_read_slice, job, known))
        # What could not be read in time is asked for again.
        read = slice_.count
        job.slice_dirs = min(_SLICE_DIRS, 3 * read if read == job.slice_dirs else read + read // 4 + 16)
        found = Found(scanned=slice_.stamps, left=slice_.left)
        out.readable.update(slice_.unchanged)
        job.dirs += len(slice_.unchanged)
        job.files += slice_.unchanged_files
        job.stack += slice_.below
        for result in slice_.others:
            await self._take(job, out, found, result, known.get(result.path))
        out.take_from(found)
        job.entered.difference_update(path for _, path in out.left)  # should it be back by now, it is entered anew
        moves = await self._moves_from_held(job, found)
        changes = in_order(found, extra_moves=moves)
        if changes:
            await self._sink.apply(changes)
            job.changes += sum(1 for change in changes if not isinstance(change, DirScanned))
        return not job.stack

    async def _known_of(self, root: RootId, wanted: list[bytes]) -> dict[bytes, KnownDir | None]:
        if isinstance(self._known, ManyDirectories):
            return await self._known.some_directories(root, wanted)
        return {path: await self._known.directory(root, path) for path in wanted}

    async def _step_stamps(self, job: ScanJob) -> bool:
        """Phase 1: a folder whose times are as stored lost and got no entry. A tenth of the cost of listing it."""
        if job.stamps is None:
            job.stamps = self._known.directories(job.root)
        batch = await anext(job.stamps, None)
        if batch is None:
            return True
        look = attach if job.kind == "attach" else _changed_stamps
        changed = await self._on_disk(job.context, functools.partial(look, job.context, batch))
        job.dirs += len(batch)
        if len(job.changed_dirs) + len(changed) <= _MAX_QUICK_DIRS:  # else phase 2 finds them as soon
            job.changed_dirs += changed
        return False

    async def _take(
        self, job: ScanJob, out: Resolved, found: Found, result: Listing | NotListed, known_dir: KnownDir | None
    ) -> None:
        place = (job.root, result.path)
        if isinstance(result, NotListed):
            if result.kind == "unreadable":
                if not result.path:
                    raise RootUnreadable(f"it cannot be read: {result.reason}")
                out.unreadable[place] = result.reason
            else:
                out.missed.append(place)  # the watcher looks at its name
            return
        out.readable.add(place)
        job.dirs += 1
        job.files += result.file_count
        if not result.path:
            job.is_root_empty = not (result.file_count or result.subdirs or result.excluded)
        manner = Manner(is_live=job.kind == "live", is_forced=job.is_forced, held=job.vanished)
        moved = await self._comparer.take_listing(found, job.root, result, known_dir, manner)
        if isinstance(moved, TreeMoved):
            job.stack.append(result.path)  # again, once the move is applied: now everything in it has a name
        else:
            below = moved.new_dirs if job.kind == "quick" else result.subdirs
            job.stack += sorted((paths.join(result.path, name) for name in below), reverse=True)

    async def _moves_from_held(self, job: ScanJob, found: Found) -> list[FileMoved]:
        """Files that vanished earlier in this walk and appear now."""
        if not job.vanished.files or not found.appeared:
            return []
        twins = _by_key(job.vanished.files)
        pairs: list[tuple[bytes, bytes, StatFingerprint]] = []
        for (root, path), file in found.appeared.items():
            key = move_key(file.fingerprint, 0)
            if root == job.root and key is not None and not file.left and key in twins:
                pairs.append((twins.pop(key), path, file.fingerprint))
        if not pairs:
            return []
        # It vanished some slices ago: another file may stand there, and be known by now.
        old = [old for old, _, _ in pairs]
        still_there = await self._on_disk(job.context, functools.partial(_still_there, job.context, old))
        moves = []
        for old_path, new_path, fingerprint in pairs:
            if old_path in still_there:
                continue
            del job.vanished.files[old_path], found.appeared[job.root, new_path]
            moves.append(FileMoved(job.root, old_path, job.root, new_path, fingerprint))
        return moves


def vanished_as_hints(job: ScanJob, *, now: float) -> list[Settled]:
    """What the walk missed, as places to look at once more: only a second look right before makes a deletion."""
    flags = hints.GONE
    places = [*job.vanished.dirs, *job.vanished.files]
    return [
        Settled(job.root, path, is_recursive=False, flags=flags, first_at=now, is_forced=job.is_forced)
        for path in places
    ]


@dataclass(slots=True)
class _Slice:
    """What one slice read. Of folders in which nothing changed, nearly all, only sums and what follows are left."""

    others: list[Listing | NotListed] = field(default_factory=list)
    unchanged: list[tuple[RootId, bytes]] = field(default_factory=list)
    unchanged_files: int = 0
    below: list[bytes] = field(default_factory=list)
    left: list[tuple[RootId, bytes]] = field(default_factory=list)  # of those, what is watched and not there
    stamps: list[DirScanned] = field(default_factory=list)  # for those whose stored times cannot be believed at a start

    @property
    def count(self) -> int:
        """Folders read."""
        return len(self.others) + len(self.unchanged)


def _read_slice(job: ScanJob, known: Mapping[bytes, KnownDir | None]) -> _Slice:
    """In the thread: list folders from the stack until the slice is used up. Children go on the stack afterwards."""
    out = _Slice()
    entries = count = 0
    stack, limit, root = job.stack, job.slice_dirs, job.root
    goes_down = job.kind != "quick"
    ahead = stack[-2 : -limit - 2 : -1] if job.waits_for_disk else []
    began, blocks = time.monotonic(), blocks_read()
    until = began + _UNCHANGED_SLICE_S
    with (
        Walk(job.context, entered=job.entered if goes_down else None) as walk,
        ReadAhead(job.context.root.path, ahead),
    ):
        # Depth first by slices: the stack stays as small as the widest level of one branch.
        while stack and entries < _SLICE_ENTRIES and count < limit and time.monotonic() < until:
            path = stack.pop()
            row = known.get(path)
            result = walk.read(path, expected=row.signature if row is not None else 0)
            count += 1
            if row is not None and isinstance(result, Unchanged):
                out.unchanged.append((root, path))
                out.unchanged_files += result.file_count
                out.left += [(root, paths.join(path, name)) for name in result.strangers]
                if not is_trusted(row, result):
                    out.stamps.append(stamp_for(root, result))
                if result.subdirs and goes_down:
                    out.below += sorted([paths.join(path, name) for name in result.subdirs], reverse=True)
                if not path:
                    job.is_root_empty = not result.has_entries
            elif not isinstance(result, Unchanged):
                out.others.append(result)
                if isinstance(result, Listing):
                    entries += result.file_count
                    until = began + _SLICE_S
    # With others reading ahead, a block now and then is enough to go on so.
    waited = blocks_read() - blocks
    job.waits_for_disk = waited > 0 if ahead else 4 * waited > count
    return out


def _changed_stamps(context: RootContext, batch: list[tuple[bytes, KnownDir]]) -> list[bytes]:
    """In the thread: those folders of *batch* whose times differ from the stored ones, by one lstat each."""
    changed: dict[bytes, None] = {}
    with Walk(context) as walk:
        for path, known in batch:
            seen = walk.stamp_only(path)
            if (
                seen is not None
                and is_stamp_safe(known)
                and stamp_of(seen) == (known.inode, known.mtime_ns, known.ctime_ns)
            ):
                continue
            if context.mounts and context.mounts.is_away(path):
                continue  # known, and kept as it is
            if seen is None or context.rules.check_path(path, is_dir=True) is not None:
                path = paths.parent(path)  # noqa: PLW2901 - gone or newly left out: its parent's change
            changed[path] = None
    return list(changed)


def _still_there(context: RootContext, files: list[bytes]) -> set[bytes]:
    with Walk(context) as walk:
        return {path for path in files if walk.is_there(path)}


def _by_key(files: Mapping[bytes, StatFingerprint]) -> dict[tuple[int, int, int, int], bytes]:
    out = {}
    for path, fingerprint in files.items():
        if (key := move_key(fingerprint, 0)) is not None:
            out[key] = path
    return out
