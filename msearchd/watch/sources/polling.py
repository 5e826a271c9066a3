"""Look by the clock: for network file systems, whose changes by others come without events, and by choice.

Out: one recursive hint per root and interval. The interval follows the cost: a root whose scan takes a second is looked
at every 50 seconds at most, so that looking never takes more than 2 % of the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from msearchd.domain.asset import Root, RootId
from msearchd.watch import hints
from msearchd.watch.hints import Coverage, Hint, NoCoverage, SourceHealth

_COST_FACTOR: Final = 50.0


class PollingSource:
    """See the module. `notify` is called when there are hints."""

    name = "polling"
    seen_at = 0.0

    def __init__(self, *, notify: Callable[[], None], interval_s: float = 10.0) -> None:
        self.coverage: Coverage = NoCoverage()
        self._notify = notify
        self._interval_s = interval_s
        self._timers: dict[RootId, asyncio.TimerHandle] = {}
        self._ready: list[Hint] = []

    async def add_root(self, root: Root) -> None:
        """Look at it every interval."""
        self._plan(root.id, self._interval_s)

    async def remove_root(self, root_id: RootId) -> None:
        """Look at it no more."""
        if (timer := self._timers.pop(root_id, None)) is not None:
            timer.cancel()

    def hints(self) -> list[Hint]:
        """Roots whose time has come."""
        ready, self._ready = self._ready, []
        return ready

    async def barrier(self, *, deadline_s: float) -> bool:
        """Never: only a scan can tell."""
        del deadline_s
        return False

    def scanned(self, root: RootId, *, took_s: float) -> None:
        """Plan the next look by the cost of the last."""
        if root in self._timers:
            self._plan(root, max(self._interval_s, took_s * _COST_FACTOR))

    def health(self) -> SourceHealth:
        """Always well: it keeps nothing open."""
        return SourceHealth(self.name)

    async def close(self) -> None:
        """Cancel all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _plan(self, root: RootId, after_s: float) -> None:
        if (timer := self._timers.get(root)) is not None:
            timer.cancel()
        self._timers[root] = asyncio.get_running_loop().call_later(after_s, self._fire, root, after_s)

    def _fire(self, root: RootId, after_s: float) -> None:
        self._ready.append(Hint(root, b"", is_recursive=True, flags=hints.LOST))
        self._plan(root, after_s)
        self._notify()
