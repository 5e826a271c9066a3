"""Delay hints until what they speak of has come to rest.

In: hints, and the time they came. Out: Settled, at most one per path and rest. Never touches disk or clock: every
call gets `now` (seconds, monotonic). One dict and one lazy heap: O(1) per hint, O(log n) per emission; a storm of n
hints on m paths costs O(n + m log m). Bounded memory: a burst becomes a hint on its directory, a storm one on the tree.

    observe(hint) ──▶ waiting ──rest over──▶ due() ──▶ [disk looks stable?] ──no──▶ postpone() ──▶ waiting
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import hints, paths
from msearchd.watch.hints import Hint
from msearchd.watch.partial import is_partial
from msearchd.watch.rests import Delays, Rests


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait. Shrink them in tests."""

    max_pending: int = 20_000  # about 6 MB; a million-file copy never holds more
    max_per_dir: int = 1000
    offender_memory_s: float = 120.0
    max_offenders: int = 10_000


@dataclass(frozen=True, slots=True)
class Settled:
    """A place that came to rest: look at it now. `is_shallow`: list the directory itself, not what is below."""

    root: RootId
    path: bytes
    is_recursive: bool
    flags: int
    first_at: float
    is_shallow: bool = False
    #: What the previous look saw, where the settler waits for a second look that sees the same.
    looked: StatFingerprint | None = None
    #: True where it was handed out because its cap or a flush says so: do not postpone it again.
    is_forced: bool = False


class _Entry:
    __slots__ = ("cap_s", "delay_s", "first", "flags", "heap_due", "is_recursive", "is_shallow", "last", "looked")

    def __init__(self, now: float, flags: int, delay_s: float, cap_s: float, heap_due: float) -> None:
        self.first = self.last = now
        self.flags = flags
        self.delay_s = delay_s
        self.cap_s = cap_s
        self.heap_due = heap_due
        self.is_recursive = self.is_shallow = False
        self.looked: StatFingerprint | None = None

    @property
    def due(self) -> float:
        return min(self.last + self.delay_s, self.first + self.cap_s)


_Key = tuple[RootId, bytes]
_NEVER: Final = float("inf")


class Settler:
    """See the module. One owner, no locks."""

    def __init__(self, delays: Delays | None = None, bounds: Bounds | None = None) -> None:
        self._delays = delays or Delays()
        self._bounds = bounds or Bounds()
        self._waiting: dict[_Key, _Entry] = {}
        self._heap: list[tuple[float, _Key]] = []
        #: Names waiting per directory, to notice a burst.
        self._names: dict[_Key, int] = {}
        #: Keys of the waiting entries that speak for everything below them.
        self._trees: set[_Key] = set()
        memory_s, max_offenders = self._bounds.offender_memory_s, self._bounds.max_offenders
        self._rests = Rests(self._delays, offender_memory_s=memory_s, max_offenders=max_offenders)
        self.collapses = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Settler {len(self._waiting)} waiting, {len(self._trees)} trees, {self.collapses} collapses>"

    def observe(self, hint: Hint, *, now: float) -> None:
        """Take a hint. Cheap: no heap operation unless it brings the path's time forward."""
        self.observe_all((hint,), now=now)

    def observe_all(self, found: Iterable[Hint], *, now: float) -> None:
        """Take many hints. Those on files of one folder, one after the other, cost about a microsecond each."""
        waiting, merged, trees = self._waiting, hints.MERGED, self._trees
        folder: _Key | None = None  # of the hint before
        is_spoken_for = False
        for hint in found:
            root, path, is_recursive, flags = hint
            if is_recursive or flags & hints.DIR or not path:
                self._observe_folder(hint, now)
                folder = None
                continue
            above, _, name = path.rpartition(b"/")
            if folder is None or above != folder[1] or root != folder[0]:
                folder = (root, above)
                is_spoken_for = bool(trees) and self._is_below_tree(folder, path)
            if is_spoken_for:
                continue
            entry = waiting.get((root, path))
            if entry is None:
                if is_partial(name):
                    continue  # the rename to its final name will come by itself
                if self._observe_new_file((root, path), folder, flags, now):
                    folder = None  # a collapse: what speaks for what may have changed
                continue
            entry.last = max(entry.last, now)
            flags = merged[entry.flags << 8 | flags]
            if flags != entry.flags or entry.cap_s > self._delays.cap_s:
                self._set_kind((root, path), entry, flags, now)

    def postpone(
        self, settled: Settled, *, now: float, looked: StatFingerprint | None, flags: int = hints.MODIFIED
    ) -> None:
        """Wait for another look: the file is still being written, as far as the last look could tell."""
        key = (settled.root, settled.path)
        self._rests.undo(key)
        if self._absorbed(key, flags=flags, now=now):
            return
        entry = self._waiting.get(key)
        if entry is None:
            entry = self._add(key, now, settled.flags)
            entry.first = settled.first_at  # the cap counts from the first hint
            entry.delay_s, entry.cap_s = self._rests.of(key, flags, now=now)
        entry.looked = looked
        self._schedule(key, entry)
        self._keep_bounds(key, now)

    def due(self, *, now: float, limit: int = 2000) -> list[Settled]:
        """Take what has come to rest by *now*, parents before their children, at most *limit*."""
        out: list[Settled] = []
        while self._heap and self._heap[0][0] <= now and len(out) < limit:
            scheduled, key = heapq.heappop(self._heap)
            entry = self._waiting.get(key)
            if entry is None or entry.heap_due != scheduled:
                continue  # stale: emitted, absorbed, or pushed again with an earlier time
            if entry.due > now:
                entry.heap_due = _NEVER
                self._schedule(key, entry)
                continue
            is_capped = entry.last + entry.delay_s > now
            out.append(self._take(key, entry, now=now, is_forced=is_capped))
        out.sort(key=lambda settled: (settled.root, settled.path))
        return out

    def put_back(self, settled: Settled, *, now: float) -> None:
        """It was handed out in vain (what it led to could not be stored): let it come again."""
        self._rests.undo((settled.root, settled.path))
        is_whole = settled.is_recursive or settled.is_shallow
        self.observe(Hint(settled.root, settled.path, is_recursive=is_whole, flags=settled.flags), now=now)

    def flush(self) -> list[Settled]:
        """Take everything at once, rested or not."""
        # Somebody asked for it: that is no offence of the file.
        out = [self._take(key, entry, now=None, is_forced=True) for key, entry in list(self._waiting.items())]
        self._heap.clear()
        out.sort(key=lambda settled: (settled.root, settled.path))
        return out

    def next_due(self) -> float | None:
        """When to call `due` again; None while nothing waits. May be early, never late."""
        while self._heap:
            scheduled, key = self._heap[0]
            entry = self._waiting.get(key)
            if entry is not None and entry.heap_due == scheduled:
                return scheduled
            heapq.heappop(self._heap)
        return None

    def forget(self, root: RootId) -> None:
        """Drop all that waits for *root*."""
        for key in [key for key in self._waiting if key[0] == root]:
            self._remove(key)
        self._rests.forget(root)

    # -- entries -------------------------------------------------------------------------------------------------------

    def _observe_new_file(self, key: _Key, folder: _Key, flags: int, now: float) -> bool:
        """A file of which nothing waits. True if that was one too many, and a whole folder or tree waits instead."""
        above = self._waiting.get(folder)
        if above is not None and above.is_shallow and key[1]:
            above.last = max(above.last, now)  # its listing speaks for it
            return False
        delay_s, cap_s = self._rests.of(key, flags, now=now)
        due = now + min(delay_s, cap_s)
        self._waiting[key] = _Entry(now, flags, delay_s, cap_s, due)
        heapq.heappush(self._heap, (due, key))
        count = self._names[folder] = self._names.get(folder, 0) + 1
        if count <= self._bounds.max_per_dir and len(self._waiting) <= self._bounds.max_pending:
            return False
        self._keep_bounds(key, now)
        return True

    def _observe_folder(self, hint: Hint, now: float) -> None:
        key = (hint.root, hint.path)
        if self._absorbed(key, flags=hint.flags, now=now, is_recursive=hint.is_recursive):
            return
        entry = self._waiting.get(key)
        flags = hint.flags if entry is None else hints.MERGED[entry.flags << 8 | hint.flags]
        if entry is None:
            entry = self._add(key, now, flags)
        entry.last = max(entry.last, now)
        if hint.is_recursive and not entry.is_recursive:
            entry.is_recursive, entry.is_shallow = True, False
            self._trees.add(key)
        self._set_kind(key, entry, flags, now)
        self._keep_bounds(key, now)

    def _add(self, key: _Key, now: float, flags: int) -> _Entry:
        entry = self._waiting[key] = _Entry(now, flags, 0.0, 0.0, _NEVER)
        parent = _parent(key)
        self._names[parent] = self._names.get(parent, 0) + 1
        return entry

    def _remove(self, key: _Key) -> None:
        self._waiting.pop(key, None)
        self._trees.discard(key)
        parent = _parent(key)
        left = self._names.get(parent, 1) - 1
        if left > 0:
            self._names[parent] = left
        else:
            self._names.pop(parent, None)

    def _take(self, key: _Key, entry: _Entry, *, now: float | None, is_forced: bool) -> Settled:
        self._remove(key)
        if now is not None and not entry.is_recursive and not entry.is_shallow and entry.flags & ~hints.GONE:
            self._rests.note(key, now)
        return Settled(
            root=key[0],
            path=key[1],
            is_recursive=entry.is_recursive,
            flags=entry.flags,
            first_at=entry.first,
            is_shallow=entry.is_shallow,
            looked=entry.looked,
            is_forced=is_forced,
        )

    def _set_kind(self, key: _Key, entry: _Entry, flags: int, now: float) -> None:
        """Set what is said of a place, and with it how long it rests."""
        entry.flags = flags
        if entry.is_recursive:
            entry.delay_s, entry.cap_s = self._delays.tree_s, self._delays.cap_s
        elif entry.is_shallow:
            entry.delay_s, entry.cap_s = self._delays.burst_s, self._delays.burst_cap_s
        else:
            entry.delay_s, entry.cap_s = self._rests.of(key, flags, now=now)
        self._schedule(key, entry)

    def _schedule(self, key: _Key, entry: _Entry) -> None:
        due = entry.due
        if due < entry.heap_due:
            entry.heap_due = due
            heapq.heappush(self._heap, (due, key))

    # -- bursts --------------------------------------------------------------------------------------------------------

    def _absorbed(self, key: _Key, *, flags: int, now: float, is_recursive: bool = False) -> bool:
        """True if a waiting entry above (or for the same directory's listing) speaks for this hint already."""
        folder = _parent(key)
        above = self._waiting.get(folder)
        if above is not None and above.is_shallow and key[1] and not is_recursive and not flags & hints.DIR:
            above.last = max(above.last, now)
            return True
        return bool(self._trees) and self._is_below_tree(folder, key[1])

    def _is_below_tree(self, folder: _Key, path: bytes) -> bool:
        """True if an entry for all of *folder*, or of a folder above it, waits. The root, path b"", lies below none."""
        root, above = folder
        while path:
            if (root, above) in self._trees:
                return True
            path, above = above, above.rpartition(b"/")[0]
        return False

    def _keep_bounds(self, key: _Key, now: float) -> None:
        parent = _parent(key)
        if self._names.get(parent, 0) > self._bounds.max_per_dir:
            self._collapse_directory(parent, now)
        if len(self._waiting) > self._bounds.max_pending:
            self._collapse_root(key[0], now)

    def _collapse_directory(self, directory: _Key, now: float) -> None:
        """Replace the files waiting in *directory* by one listing of it; recursive hints of its subdirectories stay."""
        prefix = directory[1] + b"/" if directory[1] else b""
        members = [
            key
            for key, entry in self._waiting.items()
            if key[0] == directory[0] and not entry.is_recursive and key[1] and _parent(key) == directory
        ]
        if len(members) < self._bounds.max_per_dir // 2:  # subdirectories, not files: the tree has to be walked
            self._speak_for_tree(directory, prefix, now)
            return
        self.collapses += 1
        flags = hints.LOST
        first = now
        for key in members:
            entry = self._waiting[key]
            flags, first = flags & entry.flags, min(first, entry.first)
            self._remove(key)
        if self._absorbed(directory, flags=hints.DIR, now=now):
            return
        whole = self._waiting.get(directory) or self._add(directory, now, 0)
        if not whole.is_recursive:
            whole.is_shallow = True
            whole.flags = hints.DIR | hints.MODIFIED | flags
            whole.first, whole.last = min(whole.first, first), now
            whole.delay_s, whole.cap_s = self._delays.burst_s, self._delays.burst_cap_s
        self._schedule(directory, whole)

    def _collapse_root(self, root: RootId, now: float) -> None:
        names = [key[1] for key in self._waiting if key[0] == root]
        self._speak_for_tree((root, paths.common_folder(names)), None, now)

    def _speak_for_tree(self, top: _Key, prefix: bytes | None, now: float) -> None:
        """Replace everything waiting at and below *top* by one recursive entry for it."""
        self.collapses += 1
        prefix = prefix if prefix is not None else (top[1] + b"/" if top[1] else b"")
        flags = hints.LOST
        for key in [k for k in self._waiting if k[0] == top[0] and (k[1] == top[1] or k[1].startswith(prefix))]:
            flags &= self._waiting[key].flags
            self._remove(key)
        entry = self._add(top, now, hints.DIR | hints.MODIFIED | flags)
        entry.is_recursive = True
        entry.delay_s, entry.cap_s = self._delays.burst_s, self._delays.burst_cap_s
        self._trees.add(top)
        self._schedule(top, entry)
        if len(self._heap) > 4 * self._bounds.max_pending:  # stale items of what collapsed
            self._heap = [item for item in self._heap if item[1] in self._waiting]
            heapq.heapify(self._heap)


def _parent(key: _Key) -> _Key:
    return (key[0], key[1].rpartition(b"/")[0])
