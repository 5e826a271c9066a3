"""From settled hints to changes: look at each place, compare, say what follows.

In: Settled values of any roots. Out: one batch of changes for the sink, trees to scan, roots in trouble. The disk is
read in the scanning thread, everything else is here. Both halves of a move come to rest together, so they meet here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from msearchd.domain.asset import RootId
from msearchd.watch import hints, paths
from msearchd.watch.changes import Change, TreeMoved
from msearchd.watch.comparer import Comparer, Manner
from msearchd.watch.disk import FolderLook, NotListed, RootContext, RootUnreadable, Walk
from msearchd.watch.ignore import CONTROL_FILES
from msearchd.watch.listing import Listing
from msearchd.watch.plan import Found, in_order
from msearchd.watch.ports import KnownTree
from msearchd.watch.settler import Settled

T = TypeVar("T")


class OnDisk(Protocol):
    """Runs a function of the disk in the scanning thread."""

    async def __call__(self, context: RootContext, work: Callable[[], T]) -> T:
        """Its result, or what it raises. Raises RootUnreadable where the root does not answer in time."""


@dataclass(frozen=True, slots=True)
class Rescan:
    """A tree to compare with all below: `folders` are where to begin."""

    root: RootId
    path: bytes
    folders: tuple[bytes, ...]
    is_live: bool


@dataclass(slots=True)
class Resolved:
    """What one batch of settled hints came to."""

    changes: list[Change] = field(default_factory=list)
    rescans: list[Rescan] = field(default_factory=list)
    trouble: dict[RootId, str] = field(default_factory=dict)
    unreadable: dict[tuple[RootId, bytes], str] = field(default_factory=dict)
    readable: set[tuple[RootId, bytes]] = field(default_factory=set)
    #: Those of them of which only their own level was looked at.
    shallow: set[tuple[RootId, bytes]] = field(default_factory=set)
    #: Directories that the source did not know at their places. It says so once: should this come to nothing, they have to be
    #: compared with all below again.
    entered: list[tuple[RootId, bytes]] = field(default_factory=list)
    #: Directories that are no more: their sources stop watching them once the changes are applied.
    left: list[tuple[RootId, bytes]] = field(default_factory=list)
    #: Directories that were not there when a scan came to them: moved, or no more.
    missed: list[tuple[RootId, bytes]] = field(default_factory=list)
    #: Where trees moved away from. Something else may stand there and have been compared with what is gone now: the
    #: watcher looks at each once more.
    moved_from: list[tuple[RootId, bytes]] = field(default_factory=list)

    def take_from(self, found: Found) -> None:
        """Note what the finds mean for watches and later looks."""
        self.left += found.left
        self.moved_from += [(move.root, move.old) for move in found.tree_moves]


@dataclass(slots=True)
class _Seen:
    """What the thread saw of one root."""

    looks: list[FolderLook] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    unreadable: list[NotListed] = field(default_factory=list)


class Resolver:
    """One per watcher. `resolve` is never run twice at once: comparing and applying are one step."""

    def __init__(self, known: KnownTree, comparer: Comparer, on_disk: OnDisk) -> None:
        self._known = known
        self._comparer = comparer
        self._on_disk = on_disk

    async def resolve(self, settled: Sequence[Settled], contexts: Mapping[RootId, RootContext], out: Resolved) -> None:
        """Look at every settled place of the roots in *contexts*; hints of other roots are dropped. *out* is filled."""
        found = Found()
        is_forced = False
        for root, context in contexts.items():
            mine = [s for s in settled if s.root == root]
            if not mine:
                continue
            is_forced = is_forced or any(s.is_forced for s in mine)
            direct, lost = _split(mine, context)
            out.rescans += [Rescan(root, path, (path,), is_live=False) for path in lost]
            if not direct:
                continue
            try:
                seen = await self._on_disk(context, functools.partial(_look, context, direct))
            except RootUnreadable as trouble:
                out.trouble[root] = trouble.reason
                continue
            out.entered += [(root, one.path) for one in seen.listings if one.entered.is_new or one.entered.was]
            await self._take(out, found, root, direct, seen)
        out.take_from(found)
        out.changes = in_order(found)

    async def _take(
        self, out: Resolved, found: Found, root: RootId, direct: Mapping[bytes, Settled], seen: _Seen
    ) -> None:
        out.unreadable |= {(root, n.path): n.reason for n in seen.unreadable}
        new_dirs: set[bytes] = set()
        for look in seen.looks:
            settled = {name: direct[path] for name in look.entries if (path := paths.join(look.path, name)) in direct}
            diff = await self._comparer.take_look(found, root, look, settled, Manner(is_live=True))
            new_dirs |= {paths.join(look.path, name) for name in diff.new_dirs}
            out.left += [(root, paths.join(look.path, n)) for n, e in look.entries.items() if e.kind != "dir"]
        moved: list[bytes] = []
        for listing in seen.listings:  # parents first, each with all below it: only the last tree can hold this one
            if moved and paths.is_below(listing.path, moved[-1]):
                continue  # scanned with the tree that moved, under its new name
            at = direct.get(listing.path)
            known_dir = await self._known.directory(root, listing.path)
            manner = Manner(is_live=True, is_forced=at is not None and at.is_forced)
            result = await self._comparer.take_listing(found, root, listing, known_dir, manner)
            out.readable.add((root, listing.path))
            if isinstance(result, TreeMoved):
                moved.append(listing.path)
                out.rescans.append(Rescan(root, listing.path, (listing.path,), is_live=True))
                continue
            is_whole = (
                at is None or at.is_recursive or listing.entered.is_new or listing.path in new_dirs or known_dir is None
            )
            if not is_whole:
                out.shallow.add((root, listing.path))
            below = listing.subdirs if is_whole else result.new_dirs
            if below:
                folders = tuple(paths.join(listing.path, name) for name in below)
                out.rescans.append(Rescan(root, listing.path, folders, is_live=True))
        _drop_below(found, root, moved)


def _split(settled: Sequence[Settled], context: RootContext) -> tuple[dict[bytes, Settled], list[bytes]]:
    """(places to look at now, trees to scan because hints were lost). A changed ignore file speaks for its folder."""
    direct: dict[bytes, Settled] = {}
    lost: list[bytes] = []
    for one in settled:
        name = paths.name_of(one.path)
        if name in CONTROL_FILES:
            folder = paths.parent(one.path)
            context.rules.forget(folder)
            lost.append(folder)
        elif one.is_recursive and one.flags & hints.LOST:
            lost.append(one.path)
        else:
            direct[one.path] = one
    return direct, lost


def _look(context: RootContext, wanted: Mapping[bytes, Settled]) -> _Seen:
    """In the thread: look at each name from its folder; list what turns out to be a directory.

    Where a folder itself is not there any more, its own name is looked at instead, and so on up: the hint was older
    than the rename of the folder.
    """
    seen = _Seen()
    by_folder: dict[bytes, dict[bytes, None]] = {}
    to_list: set[bytes] = set()
    for path in wanted:
        if path:
            by_folder.setdefault(paths.parent(path), {})[paths.name_of(path)] = None
        else:
            to_list.add(b"")
    looked: set[bytes] = set()
    with Walk(context) as walk:
        while by_folder:
            folder = max(by_folder, key=lambda path: path.count(b"/"))  # deepest first: misses climb
            names = [name for name in by_folder.pop(folder) if paths.join(folder, name) not in looked]
            result = walk.look(folder, names)
            if isinstance(result, FolderLook):
                seen.looks.append(result)
                looked |= {paths.join(folder, name) for name in names}
                to_list |= {paths.join(folder, n) for n, e in result.entries.items() if e.kind == "dir"}
            elif result.kind == "unreadable":
                _note_unreadable(seen, result)
            elif folder:
                by_folder.setdefault(paths.parent(folder), {})[paths.name_of(folder)] = None
        for path in sorted(to_list, key=lambda path: path.replace(b"/", b"\0")):
            listing = walk.read_whole(path)
            if isinstance(listing, Listing):
                seen.listings.append(listing)
            elif listing.kind == "unreadable":
                _note_unreadable(seen, listing)
    return seen


def _note_unreadable(seen: _Seen, result: NotListed) -> None:
    if not result.path:
        raise RootUnreadable(f"it cannot be read: {result.reason}")
    seen.unreadable.append(result)


def _drop_below(found: Found, root: RootId, moved: Sequence[bytes]) -> None:
    """Forget what was found below trees that moved: it was compared under a name that nothing is known by yet."""
    if not moved:
        return
    tops = frozenset(moved)
    for place in [p for p in found.appeared if p[0] == root and not tops.isdisjoint(paths.ancestors(p[1]))]:
        del found.appeared[place]
