"""Look by the clock at the directories that the watch limit leaves out, and give the watches to those that change.

A directory's times change when an entry comes, goes or is renamed: 240,000 lstat a second find those. In-place edits of
files there are found by listing all of them, every ten minutes. A directory that changed gets a watch; one that has not
changed for longest gives its own up and is swept from then on. In: the tree's nodes. Out: hints.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msearchd.domain.asset import RootId
from msearchd.watch import hints, paths
from msearchd.watch.hints import Hint
from msearchd.watch.sources.watch_tree import Node, WatchTree

_EVERY_S: Final = 5.0
_COST_FACTOR: Final = 50.0  # at most 2 % of the time
_FULL_EVERY_S: Final = 600.0  # in-place edits in those directories
_RANK_EVERY_S: Final = 60.0
#: Each exchange lists two folders: so many a round, or a first scan would be disturbed by its own sweep.
_MAX_EXCHANGES: Final = 1000

Stamp = tuple[int, int, int]
_GONE: Final = (0, 0, 0)


class Sweep:
    """One task; the looking itself is done in a thread."""

    def __init__(self, tree: WatchTree, bases: Mapping[RootId, bytes], hint: Callable[[Hint], None]) -> None:
        self._tree = tree
        self._bases = bases
        self._hint = hint
        self._stamps: dict[Node, Stamp] = {}
        self._full_at = 0.0
        self._rank_at = 0.0
        #: Watched directories, the longest unchanged last: they give up their watches first.
        self._cold: list[Node] = []
        self._promoted: set[Node] = set()
        #: Unwatched directories that changed and wait for a watch, in order.
        self._hot: dict[Node, None] = {}

    async def run(self) -> None:
        """Sweep for ever. Costs nothing while every directory is watched."""
        pause_s = _EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._tree.unwatched:
                self._stamps.clear()
                self._cold, self._rank_at = [], 0.0
                continue
            began = time.monotonic()
            for hint in await asyncio.to_thread(self.look):
                self._hint(hint)
            pause_s = max(_EVERY_S, (time.monotonic() - began) * _COST_FACTOR)

    def look(self) -> list[Hint]:
        """Compare every unwatched directory with the last sweep. The first time all of them are looked at closely."""
        now = time.monotonic()
        is_full, is_ranking = now >= self._full_at, now >= self._rank_at
        stamps: dict[Node, Stamp] = {}
        changed: dict[Node, Hint] = {}
        for node, root, path, full in self._places(self._tree.unwatched_nodes()):
            stamp = stamps[node] = _stamp(full)
            before = self._stamps.get(node)
            if before is not None and before != stamp:
                node.changed_s = time.time()
                self._hot[node] = None
            if is_full or before != stamp:
                is_other = before is not None and before[2] != stamp[2]  # another directory: with all below
                changed[node] = Hint(root, path, is_recursive=is_other, flags=hints.DIR | hints.ATTRIB)
        self._stamps = stamps
        if is_full:
            self._full_at = now + _FULL_EVERY_S
        if is_ranking:
            self._hot |= dict.fromkeys(self._rank(stamps))
            self._promoted = set()
            self._rank_at = time.monotonic() + max(_RANK_EVERY_S, (time.monotonic() - now) * _COST_FACTOR)
        if self._promoted.isdisjoint(stamps):  # else others took what we freed: wait for the next ranking
            changed.update(self._promote([node for node in self._hot if node in stamps]))
            self._hot = {}
        return list(changed.values())

    def _rank(self, stamps: Mapping[Node, Stamp]) -> list[Node]:
        """Unwatched directories that changed after the coldest of the watched did, those that changed last first."""
        watched = [(max(n.changed_s, _stamp(full)[0] / 1e9), n) for n, _, _, full in self._places(self._tree.watched())]
        watched.sort(key=lambda row: row[0], reverse=True)
        self._cold = [node for _, node in watched]
        waiting = [(max(node.changed_s, stamp[0] / 1e9), node) for node, stamp in stamps.items() if stamp != _GONE]
        waiting.sort(key=lambda row: row[0], reverse=True)
        hot: list[Node] = []
        for (is_since, node), (cold_since, _) in zip(waiting, reversed(watched), strict=False):
            if is_since <= cold_since or len(hot) >= _MAX_EXCHANGES:
                break
            hot.append(node)
        return hot

    def _promote(self, hot: Iterable[Node]) -> dict[Node, Hint]:
        """Free a watch for each of *hot*; listing it takes the watch. What gave one up is new to the next sweep."""
        out = {}
        for node in [node for node in hot if node not in self._tree.elsewhere][:_MAX_EXCHANGES]:
            if not any(self._tree.give_up(cold) for cold in self._take_cold()):
                break
            out[node] = Hint(node.root, node.path(), flags=hints.DIR | hints.ATTRIB)
        self._promoted = set(out)
        return out

    def _take_cold(self) -> Iterator[Node]:
        while self._cold:
            yield self._cold.pop()

    def _places(self, nodes: Iterable[Node]) -> Iterable[tuple[Node, RootId, bytes, bytes]]:
        for node in nodes:
            base = self._bases.get(node.root)
            if base is not None:
                path = node.path()
                yield node, node.root, path, paths.join(base, path)


def _stamp(path: bytes) -> Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return _GONE
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
