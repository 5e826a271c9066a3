"""Blocked jobs whose cause is gone: what was not installed when they blocked is looked for again now and then.

In: the causes that jobs wait for, and for some of them a look whether that is there now. Out: jobs that are ready again.
`wakes` is pure. What is there and does not work would block its jobs again at once: it is tried ever more rarely.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from msearchd.jobs.queue import JobQueue

log = structlog.get_logger(__name__)

#: By cause: True where what it names can be found now. Looks at files alone, starts nothing.
Looks = Mapping[str, Callable[[], bool]]

_FIRST_WAIT_S: Final = 300.0
_MOST_WAIT_S: Final = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Tried:
    """Jobs of a cause were woken; not again before this time, whatever is there. Seconds of one monotonic clock."""

    not_before_s: float
    wait_s: float


def wakes(tried: Tried | None, *, is_there: bool, now_s: float) -> tuple[bool, Tried | None]:
    """Whether jobs blocked on something should be woken now, and what is remembered of it.

    At once when it is found; while it stays and its jobs block again, after ever longer waits; as new once it was gone.
    """
    if not is_there:
        return False, None
    if tried is not None and now_s < tried.not_before_s:
        return False, tried
    wait_s = _FIRST_WAIT_S if tried is None else min(_MOST_WAIT_S, 2 * tried.wait_s)
    return True, Tried(now_s + wait_s, wait_s)


class Wakener:
    """Owned by the upkeep, which calls `look` now and then."""

    def __init__(self, queue: JobQueue, looks: Looks, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._looks = looks
        self._now_s = now_s
        self._tried: dict[str, Tried] = {}

    async def look(self) -> None:
        """Wake the jobs whose cause is gone. Raises RetryLater where the queue cannot be read or written."""
        for blocked in await self._queue.blocked_reasons():
            if (look := self._looks.get(blocked.cause)) is None:
                continue
            is_there = await asyncio.to_thread(look)
            should_wake, tried = wakes(self._tried.get(blocked.cause), is_there=is_there, now_s=self._now_s())
            if should_wake:
                jobs = await self._queue.wake(blocked.cause)
                log.info("what was missing is there", cause=blocked.cause, jobs=jobs)
            if tried is None:
                self._tried.pop(blocked.cause, None)
            else:
                self._tried[blocked.cause] = tried
