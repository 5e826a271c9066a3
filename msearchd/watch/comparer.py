"""Ask what is known of a folder, compare, and collect what it means. Shared by hints and scans.

In: looks and listings of the disk. Out: entries in a `Found`, and where to go on. Reads KnownTree, writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import hints, paths
from msearchd.watch.changes import DirScanned, FileGone, FileTouched, TreeGone, TreeMoved
from msearchd.watch.disk import FolderLook
from msearchd.watch.listing import Listing, Unchanged
from msearchd.watch.plan import Appeared, Diff, Found, compare, is_at_rest, is_same_tree, may_move
from msearchd.watch.ports import KnownDir, KnownTree, SingleFileLookup, WholeFolders
from msearchd.watch.settler import Settled, Settler

#: A stamp this close to its scan may hide a change in the same tick (FAT counts in 2 s).
_RACY_NS = 2_000_000_000
#: Up to here single rows are cheaper than a folder's worth of them.
_SINGLE_ROWS = 40


@dataclass(slots=True)
class Held:
    """What a scan found missing and does not believe yet: it may turn up elsewhere, or the disk may be away."""

    files: dict[bytes, StatFingerprint] = field(default_factory=dict)
    dirs: dict[bytes, KnownDir | None] = field(default_factory=dict)
    max_entries: int = 200_000  # 40 MB; beyond it moves are not paired any more, only counted
    dropped: int = 0

    def add_file(self, path: bytes, fingerprint: StatFingerprint) -> None:
        """Hold one file."""
        if len(self.files) < self.max_entries:
            self.files[path] = fingerprint
        else:
            self.dropped += 1


@dataclass(frozen=True, slots=True)
class Manner:
    """How a comparison is meant. `is_forced`: take files as they are, even if they may still be written."""

    is_live: bool
    is_forced: bool = False
    held: Held | None = None


class Comparer:
    """One per watcher."""

    def __init__(self, known: KnownTree, settler: Settler, *, fresh_s: float, now: Callable[[], float]) -> None:
        self._known = known
        self._whole_folders = known if isinstance(known, WholeFolders) else None
        self._settler = settler
        self._fresh_s = fresh_s
        self._now = now

    # -- single names --------------------------------------------------------------------------------------------------

    async def take_look(
        self, found: Found, root: RootId, look: FolderLook, settled: Mapping[bytes, Settled], manner: Manner
    ) -> Diff:
        """Compare the looked-at names of one folder with what is known of them."""
        folder, entries = look.path, look.entries
        known_files = await self._files_among(root, folder, list(entries))
        known_subdirs = [
            name
            for name in await self._known.subdirs(root, folder)
            if name in entries and (name not in look.held or entries[name].kind == "dir")
        ]
        files = {name: e.fingerprint for name, e in entries.items() if e.fingerprint is not None}
        subdirs = [name for name, e in entries.items() if e.kind == "dir"]
        diff = compare(files, subdirs, known_files, known_subdirs)
        if diff.is_empty:
            return diff
        left = {name: e.reason for name, e in entries.items() if e.kind == "left"}
        await self._collect(found, root, folder, look.device, diff, files, left, known_files, settled, manner)
        known_dir = await self._known.directory(root, folder)
        if known_dir is not None and known_dir.signature:
            found.resets.append(_doubtful(root, folder, known_dir.inode))
        return diff

    async def _files_among(self, root: RootId, folder: bytes, names: list[bytes]) -> dict[bytes, StatFingerprint]:
        if isinstance(self._known, SingleFileLookup) and len(names) <= _SINGLE_ROWS:
            rows = {name: await self._known.file(root, paths.join(folder, name)) for name in names}
            return {name: row for name, row in rows.items() if row is not None}
        wanted = set(names)
        return {name: row for name, row in (await self._known.files(root, folder)).items() if name in wanted}

    # -- whole folders -------------------------------------------------------------------------------------------------

    async def take_listing(
        self, found: Found, root: RootId, listing: Listing, known_dir: KnownDir | None, manner: Manner
    ) -> Diff | TreeMoved:
        """Compare a whole folder. TreeMoved: it was known elsewhere; apply that, then list it again with all below."""
        moved = await self._tree_move(found, root, listing, known_dir, manner)
        if moved is not None:
            return moved
        for path in [paths.join(listing.path, name) for name in listing.strangers]:
            if await self._known.directory(root, path) is None:  # else it is missing below: it may have moved
                found.left.append((root, path))
        stamp = stamp_for(root, listing)
        if known_dir is not None and known_dir.signature == listing.signature:
            if not is_trusted(known_dir, listing):
                found.scanned.append(stamp)
            return Diff()
        known_files, known_subdirs = await self._contents(root, listing.path)
        if listing.held:
            known_subdirs = [name for name in known_subdirs if name not in listing.held or name in listing.subdirs]
        files = listing.files()
        diff = compare(files, listing.subdirs, known_files, known_subdirs)
        is_whole = await self._collect(
            found, root, listing.path, listing.device, diff, files, listing.left, known_files, {}, manner
        )
        if is_whole:
            found.scanned.append(stamp)
        elif known_dir is None or known_dir.signature:
            found.resets.append(_doubtful(root, listing.path, listing.inode))
        return diff

    async def _contents(self, root: RootId, path: bytes) -> tuple[dict[bytes, StatFingerprint], list[bytes]]:
        if self._whole_folders is not None:
            return await self._whole_folders.contents(root, path)
        return await self._known.files(root, path), await self._known.subdirs(root, path)

    async def _tree_move(
        self, found: Found, root: RootId, listing: Listing, known_dir: KnownDir | None, manner: Manner
    ) -> TreeMoved | None:
        new = (root, listing.path)
        was = listing.entered.was
        if was is not None and (not may_move(was, new) or await self._known.directory(*was) is None):
            was = None
        if was is None and known_dir is None:
            was = self._vanished_twin(found, root, listing, manner)
        if was is None:
            return None
        if manner.held is not None and was[0] == root:
            manner.held.dirs.pop(was[1], None)
        found.gone_dirs.pop(was, None)
        move = TreeMoved(*was, *new)
        found.tree_moves.append(move)
        return move

    def _vanished_twin(
        self, found: Found, root: RootId, listing: Listing, manner: Manner
    ) -> tuple[RootId, bytes] | None:
        candidates = dict(found.gone_dirs)
        if manner.held is not None:
            candidates |= {(root, path): row for path, row in manner.held.dirs.items()}
        for place, row in candidates.items():
            if row is not None and is_same_tree(
                row, inode=listing.inode, mtime_ns=listing.mtime_ns, signature=listing.signature
            ):
                return place if may_move(place, (root, listing.path)) else None
        return None

    # -- both ----------------------------------------------------------------------------------------------------------

    async def _collect(
        self,
        found: Found,
        root: RootId,
        folder: bytes,
        device: int,
        diff: Diff,
        files: Mapping[bytes, StatFingerprint],
        left: Mapping[bytes, str],
        known_files: Mapping[bytes, StatFingerprint],
        settled: Mapping[bytes, Settled],
        manner: Manner,
    ) -> bool:
        """Put *diff* into *found*. False if something of it is put off, so the folder is not as known afterwards."""
        is_whole = True
        for name in diff.file_to_dir:
            found.first_gone.append(FileGone(root, paths.join(folder, name)))
        for name in diff.dir_to_file:
            found.first_gone.append(TreeGone(root, paths.join(folder, name)))
            found.left.append((root, paths.join(folder, name)))
        for name in diff.touched:
            found.touched.append(FileTouched(root, paths.join(folder, name), files[name]))
        now_ns = time.time_ns()
        for name in diff.appeared:
            path = paths.join(folder, name)
            at = settled.get(name) or Settled(root, path, is_recursive=False, flags=0, first_at=self._now())
            if name not in left and not manner.is_forced and not self._is_at_rest(at, files[name], now_ns):
                self._settler.postpone(at, now=self._now(), looked=files[name])
                is_whole = False
                continue
            found.appeared[root, path] = Appeared(files[name], device, manner.is_live, left.get(name, ""))
        for name in diff.vanished:
            path = paths.join(folder, name)
            if manner.held is not None:
                manner.held.add_file(path, known_files[name])
                is_whole = False
            else:
                found.vanished[root, path] = (known_files[name], device)
        for name in diff.gone_dirs:
            path = paths.join(folder, name)
            row = await self._known.directory(root, path)
            if manner.held is not None:
                manner.held.dirs[path] = row
                is_whole = False
            else:
                found.gone_dirs[root, path] = row
                found.left.append((root, path))
        return is_whole

    def _is_at_rest(self, settled: Settled, fingerprint: StatFingerprint, now_ns: int) -> bool:
        if settled.is_forced:
            return True
        if settled.flags & (hints.CLOSED | hints.MOVED) and not settled.flags & hints.MODIFIED:
            return True
        return is_at_rest(fingerprint, now_ns=now_ns, fresh_s=self._fresh_s, looked=settled.looked)


def stamp_for(root: RootId, listing: Listing | Unchanged) -> DirScanned:
    """The claim that all of *listing* is known."""
    return DirScanned(
        root, listing.path, listing.inode, listing.mtime_ns, listing.ctime_ns, listing.signature, _now_ms()
    )


def _doubtful(root: RootId, path: bytes, inode: int) -> DirScanned:
    return DirScanned(root, path, inode, mtime_ns=0, ctime_ns=0, signature=0, scanned_ms=_now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def is_trusted(known: KnownDir, listing: Listing | Unchanged) -> bool:
    """True if phase 1 of the next start can believe what is stored; else store today's stamps."""
    stored = (known.inode, known.mtime_ns, known.ctime_ns)
    return stored == (listing.inode, listing.mtime_ns, listing.ctime_ns) and is_stamp_safe(known)


def stamp_of(status: os.stat_result) -> tuple[int, int, int]:
    """What of a directory changes when an entry comes, goes or is renamed."""
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def is_stamp_safe(known: KnownDir) -> bool:
    """True if the directory's times lie far enough before its scan to prove that nothing came in the same tick."""
    safe_ns = known.scanned_ms * 1_000_000 - _RACY_NS
    return known.mtime_ns < safe_ns and known.ctime_ns < safe_ns and known.signature != 0
