"""Look by the clock at the directories that the watch limit leaves out.

A directory's times change when an entry comes, goes or is renamed: 240,000 lstat a second find those. In-place edits of
files there wait for the full scan. In: the tree's nodes without a watch. Out: hints.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Final

from msearchd.domain.asset import RootId
from msearchd.watch import hints, paths
from msearchd.watch.hints import Hint
from msearchd.watch.sources.watch_tree import Node, WatchTree

_EVERY_S: Final = 5.0
_COST_FACTOR: Final = 50.0  # at most 2 % of the time
_FULL_EVERY_S: Final = 600.0  # in-place edits in those directories

Stamp = tuple[int, int, int]


class Sweep:
    """One task; the looking itself is done in a thread."""

    def __init__(self, tree: WatchTree, bases: Mapping[RootId, bytes], hint: Callable[[Hint], None]) -> None:
        self._tree = tree
        self._bases = bases
        self._hint = hint
        self._stamps: dict[Node, Stamp] = {}
        self._full_at = 0.0

    async def run(self) -> None:
        """Sweep for ever. Costs nothing while every directory is watched."""
        pause_s = _EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._tree.unwatched:
                self._stamps.clear()
                continue
            began = time.monotonic()
            for hint in await asyncio.to_thread(self.look):
                self._hint(hint)
            pause_s = max(_EVERY_S, (time.monotonic() - began) * _COST_FACTOR)

    def look(self) -> list[Hint]:
        """Compare every unwatched directory with the last sweep. The first time all of them are looked at closely."""
        with self._tree.lock:
            nodes = [(node, node.root, node.path()) for node in self._tree.unwatched]
        is_full = time.monotonic() >= self._full_at
        if is_full:
            self._full_at = time.monotonic() + _FULL_EVERY_S
        stamps: dict[Node, Stamp] = {}
        out = []
        for node, root, path in nodes:
            base = self._bases.get(root)
            if base is None:
                continue
            stamp = _stamp(paths.join(base, path))
            stamps[node] = stamp
            if is_full or self._stamps.get(node) != stamp:
                out.append(Hint(root, path, flags=hints.DIR | hints.ATTRIB))
        self._stamps = stamps
        return out


def _stamp(path: bytes) -> Stamp:
    try:
        status = os.lstat(path)
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
