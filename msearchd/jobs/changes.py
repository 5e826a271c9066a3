"""Waking those who wait for the queue: a number that moves on, and who waits for it to.

    seen = changes.seen()
    … look, find nothing …
    await changes.after(seen)      # returns at once if anything happened since `seen`

No wake-up is lost between the look and the wait, nobody polls.
"""

from __future__ import annotations

import asyncio


class Changes:
    """Owned by the loop thread. Saying something to nobody costs next to nothing: it is said for every job."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def seen(self) -> int:
        """The number to hand to `after`."""
        return self._number

    def notify(self) -> None:
        """Wake everybody who waits."""
        self._number += 1
        while self._waiting:
            waiter = self._waiting.pop()
            if not waiter.done():
                waiter.set_result(None)

    async def after(self, seen: int) -> None:
        """Return once something happened after *seen*."""
        while self._number == seen:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
