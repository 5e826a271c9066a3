"""Lanes: named, bounded places where blocking work runs, so that the event loop never waits for a disk.

In: plain functions. Out: their results. A lane has a few threads and a bounded line before them; who comes when the
line is full is told to come later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from msearchd import errors

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """A lane as it stands."""

    name: str
    threads: int
    busy: int
    waiting: int


class Lane:
    """Threads for one kind of work. *max_waiting* bounds the memory that waiting work holds."""

    def __init__(self, name: str, *, threads: int, max_waiting: int = 1000) -> None:
        self.name = name
        self._threads = threads
        self._max_waiting = max_waiting
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=f"lane-{name}")
        self._inside = 0
        self._is_closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *function* on one of the threads. Raises what it raises; RetryLater where the line is full or closed.

        Cancelled here, work that waits is dropped; work that runs goes on to its end and keeps its place until then.
        """
        if self._is_closed:
            message = f"the lane {self.name} is closed"
            raise errors.RetryLater(message)
        if self._inside >= self._threads + self._max_waiting:
            message = f"too much work waits in the lane {self.name}"
            raise errors.RetryLater(message, hint="it goes on by itself")
        loop = asyncio.get_running_loop()
        self._inside += 1
        job = self._executor.submit(partial(function, *args, **kwargs))
        # On the thread that ends or cancels it; the loop may be gone by then.
        job.add_done_callback(lambda _: _on_loop(loop, self._left))
        return await asyncio.wrap_future(job)

    def snapshot(self) -> LaneStatus:
        """How full it is."""
        busy = min(self._inside, self._threads)
        return LaneStatus(self.name, self._threads, busy, self._inside - busy)

    async def close(self, *, deadline_s: float) -> bool:
        """Take no more work, drop what waits, wait for what runs; False if it did not end in time.

        A thread that never ends keeps the interpreter from exiting: the caller then leaves by os._exit.
        """
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        joining = asyncio.get_running_loop().run_in_executor(None, self._executor.shutdown)
        done, _ = await asyncio.wait({joining}, timeout=deadline_s)
        return bool(done)

    def _left(self) -> None:
        self._inside -= 1


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
