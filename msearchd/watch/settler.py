"""Delay hints until what they speak of has come to rest.

In: hints, and the time they came. Out: Settled, at most one per path and rest. Never touches disk or clock: every
call gets `now` (seconds, monotonic). One dict and one lazy heap: O(1) per hint, O(log n) per emission; a storm of n
hints on m paths costs O(n + m log m). Bounded memory: a burst becomes a hint on its directory, a storm one on the tree.

    observe(hint) ──▶ waiting ──rest over──▶ due() ──▶ [disk looks stable?] ──no──▶ postpone() ──▶ waiting
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import hints, paths
from msearchd.watch.hints import Hint
from msearchd.watch.partial import is_partial


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Quiet time in seconds after the last hint, by what the hint said (measured in research, section 2)."""

    closed_s: float = 0.2
    created_s: float = 2.0
    modified_s: float = 1.0
    gone_s: float = 0.1
    cap_s: float = 30.0  # a file that never rests is taken as it is
    tree_s: float = 0.05  # a new directory: look soon, its files' own rest is checked when they are found
    burst_s: float = 1.0  # many names in one directory: one listing instead
    burst_cap_s: float = 10.0


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

    def __init__(self, now: float) -> None:
        self.first = self.last = now
        self.flags = 0
        self.delay_s = self.cap_s = 0.0
        self.heap_due = float("inf")
        self.is_recursive = self.is_shallow = False
        self.looked: StatFingerprint | None = None

    @property
    def due(self) -> float:
        return min(self.last + self.delay_s, self.first + self.cap_s)


_Key = tuple[RootId, bytes]
_OFFENDER_BASE_S: Final = 5.0
_OFFENDER_TOP_S: Final = 60.0
_OFFENDER_CAP_S: Final = 600.0


class Settler:
    """See the module. One owner, no locks."""

    def __init__(self, delays: Delays | None = None, bounds: Bounds | None = None) -> None:
        self._delays = delays or Delays()
        self._bounds = bounds or Bounds()
        self._waiting: dict[_Key, _Entry] = {}
        self._heap: list[tuple[float, RootId, bytes]] = []
        #: Names waiting per directory, to notice a burst.
        self._names: dict[_Key, int] = {}
        #: Keys of the waiting entries that speak for everything below them.
        self._trees: set[_Key] = set()
        #: Path -> (time of its last emission, emissions in a row), oldest first.
        self._emitted: OrderedDict[_Key, tuple[float, int]] = OrderedDict()
        self.collapses = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Settler {len(self._waiting)} waiting, {len(self._trees)} trees, {self.collapses} collapses>"

    def observe(self, hint: Hint, *, now: float) -> None:
        """Take a hint. Cheap: no heap operation unless it brings the path's time forward."""
        if not hint.is_recursive and not hint.flags & hints.DIR and is_partial(hint.path.rpartition(b"/")[2]):
            return  # the rename to its final name will come by itself
        key = (hint.root, hint.path)
        if self._absorbed(key, hint, now):
            return
        entry = self._waiting.get(key)
        if entry is None:
            entry = self._add(key, now)
        entry.last = max(entry.last, now)
        self._merge(key, entry, hint, now)
        self._schedule(key, entry)
        self._keep_bounds(key, now)

    def postpone(
        self, settled: Settled, *, now: float, looked: StatFingerprint | None, flags: int = hints.MODIFIED
    ) -> None:
        """Wait for another look: the file is still being written, as far as the last look could tell."""
        key = (settled.root, settled.path)
        self._undo_emission(key)
        if self._absorbed(key, Hint(settled.root, settled.path, flags=flags), now):
            return
        entry = self._waiting.get(key)
        if entry is None:
            entry = self._add(key, now)
            entry.first = settled.first_at  # the cap counts from the first hint
            entry.flags = settled.flags
            entry.delay_s, entry.cap_s = self._times(key, flags, now)
        entry.looked = looked
        self._schedule(key, entry)
        self._keep_bounds(key, now)

    def due(self, *, now: float, limit: int = 2000) -> list[Settled]:
        """Take what has come to rest by *now*, parents before their children, at most *limit*."""
        out: list[Settled] = []
        while self._heap and self._heap[0][0] <= now and len(out) < limit:
            scheduled, root, path = heapq.heappop(self._heap)
            key = (root, path)
            entry = self._waiting.get(key)
            if entry is None or entry.heap_due != scheduled:
                continue  # stale: emitted, absorbed, or pushed again with an earlier time
            if entry.due > now:
                entry.heap_due = float("inf")
                self._schedule(key, entry)
                continue
            is_capped = entry.last + entry.delay_s > now
            out.append(self._take(key, entry, now=now, is_forced=is_capped))
        out.sort(key=lambda settled: (settled.root, settled.path))
        return out

    def put_back(self, settled: Settled, *, now: float) -> None:
        """It was handed out in vain (what it led to could not be stored): let it come again."""
        self._undo_emission((settled.root, settled.path))
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
            scheduled, root, path = self._heap[0]
            entry = self._waiting.get((root, path))
            if entry is not None and entry.heap_due == scheduled:
                return scheduled
            heapq.heappop(self._heap)
        return None

    def forget(self, root: RootId) -> None:
        """Drop all that waits for *root*."""
        for key in [key for key in self._waiting if key[0] == root]:
            self._remove(key)
        for key in [key for key in self._emitted if key[0] == root]:
            del self._emitted[key]

    # -- entries -------------------------------------------------------------------------------------------------------

    def _add(self, key: _Key, now: float) -> _Entry:
        entry = self._waiting[key] = _Entry(now)
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
            self._note_emission(key, now)
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

    def _merge(self, key: _Key, entry: _Entry, hint: Hint, now: float) -> None:
        was_closed = entry.flags & (hints.CLOSED | hints.MOVED) and not entry.flags & hints.MODIFIED
        # A new operation replaces the kind: "deleted, then written" waits for the writer; utime after close does not.
        kind = hint.flags
        if was_closed and not kind & ~(hints.ATTRIB | hints.DIR):
            kind |= entry.flags & (hints.CLOSED | hints.MOVED)
        is_witnessed = entry.flags and not entry.flags & hints.LOST
        entry.flags = kind & ~hints.LOST if is_witnessed else kind
        if hint.is_recursive and not entry.is_recursive:
            entry.is_recursive, entry.is_shallow = True, False
            self._trees.add(key)
        if entry.is_recursive:
            entry.delay_s, entry.cap_s = self._delays.tree_s, self._delays.cap_s
        elif entry.is_shallow:
            entry.delay_s, entry.cap_s = self._delays.burst_s, self._delays.burst_cap_s
        else:
            entry.delay_s, entry.cap_s = self._times(key, entry.flags, now)

    def _times(self, key: _Key, flags: int, now: float) -> tuple[float, float]:
        d = self._delays
        if flags & (hints.CLOSED | hints.MOVED):
            delay = d.closed_s
        elif flags & hints.CREATED:
            delay = d.created_s
        elif flags & hints.GONE:
            return d.gone_s, d.cap_s  # a deletion is never put off by what the file did before
        else:
            delay = d.modified_s
        at, streak = self._emitted.get(key, (float("-inf"), 0))
        if streak < 2 or now - at > self._bounds.offender_memory_s:
            return delay, d.cap_s
        # Logs, databases, machine images: 5 s, doubled up to a minute (Baloo), indexed at least every 10 minutes
        # (Syncthing's cap). The first repeat is free: saving a text twice is no offence.
        return max(delay, min(_OFFENDER_BASE_S * 2.0 ** (streak - 2), _OFFENDER_TOP_S)), max(d.cap_s, _OFFENDER_CAP_S)

    def _note_emission(self, key: _Key, now: float) -> None:
        at, streak = self._emitted.pop(key, (float("-inf"), 0))
        self._emitted[key] = (now, streak + 1 if now - at <= self._bounds.offender_memory_s else 1)
        while len(self._emitted) > self._bounds.max_offenders:
            self._emitted.popitem(last=False)

    def _undo_emission(self, key: _Key) -> None:
        at, streak = self._emitted.pop(key, (0.0, 0))
        if streak > 1:
            self._emitted[key] = (at, streak - 1)

    def _schedule(self, key: _Key, entry: _Entry) -> None:
        due = entry.due
        if due < entry.heap_due:
            entry.heap_due = due
            heapq.heappush(self._heap, (due, *key))

    # -- bursts --------------------------------------------------------------------------------------------------------

    def _absorbed(self, key: _Key, hint: Hint, now: float) -> bool:
        """True if a waiting entry above (or for the same directory's listing) speaks for this hint already."""
        root, path = key
        parent = self._waiting.get(_parent(key))
        if parent is not None and parent.is_shallow and path and not hint.is_recursive and not hint.flags & hints.DIR:
            parent.last = max(parent.last, now)
            return True
        if not self._trees:
            return False
        while path:
            path = path.rpartition(b"/")[0]
            if (root, path) in self._trees:
                return True
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
        if self._absorbed(directory, Hint(*directory, flags=hints.DIR), now):
            return
        whole = self._waiting.get(directory) or self._add(directory, now)
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
        entry = self._add(top, now)
        entry.is_recursive = True
        entry.flags = hints.DIR | hints.MODIFIED | flags
        entry.delay_s, entry.cap_s = self._delays.burst_s, self._delays.burst_cap_s
        self._trees.add(top)
        self._schedule(top, entry)
        if len(self._heap) > 4 * self._bounds.max_pending:  # stale items of what collapsed
            self._heap = [item for item in self._heap if (item[1], item[2]) in self._waiting]
            heapq.heapify(self._heap)


def _parent(key: _Key) -> _Key:
    return (key[0], key[1].rpartition(b"/")[0])
