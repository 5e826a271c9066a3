"""The threads in which the disk is read: few, named, and never trusted to come back.

A dead network share hangs whoever touches it, for minutes or for ever. The root is then offline and its thread is left
to wait; other roots go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from msearchd.domain.asset import RootId
from msearchd.watch.disk import RootContext, RootUnreadable

T = TypeVar("T")
_DEADLINE_S: Final = 60.0  # a folder of a million names on a cold disk takes ten
_THREADS: Final = 4  # one works at a time; the others are spares for threads that hang


class DiskLane:
    """Runs functions of the disk. `close` does not wait for threads that hang."""

    def __init__(self, *, deadline_s: float = _DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="watch-disk")
        self._stuck: dict[RootId, Future[Any]] = {}

    async def run(self, context: RootContext, work: Callable[[], T], *, deadline_s: float | None = None) -> T:
        """Run *work* in a thread. Raises what it raises; RootUnreadable if it does not return in time."""
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        root = context.root.id
        if self.is_stuck(root):
            raise RootUnreadable("it does not answer")
        future = self._threads.submit(work)
        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.shield(asyncio.wrap_future(future))
        except TimeoutError as error:
            self._stuck[root] = future
            raise RootUnreadable(f"it does not answer within {limit_s:g} s") from error

    def is_stuck(self, root: RootId) -> bool:
        """True while a thread still hangs in this root."""
        stuck = self._stuck.get(root)
        if stuck is not None and stuck.done():
            del self._stuck[root]
        return root in self._stuck

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
