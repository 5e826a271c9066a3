"""Waking those who wait for the queue: a number that moves on, and an event for those who have seen the present one.

    seen = changes.seen()
    … look, find nothing …
    await changes.after(seen)      # returns at once if anything happened since `seen`

No wake-up is lost between the look and the wait, nobody polls.
"""

from __future__ import annotations

import asyncio


class Changes:
    """Owned by the loop thread."""

    def __init__(self) -> None:
        self._number = 0
        self._moved = asyncio.Event()

    def seen(self) -> int:
        """The number to hand to `after`."""
        return self._number

    def notify(self) -> None:
        """Wake everybody who waits."""
        self._number += 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def after(self, seen: int) -> None:
        """Return once something happened after *seen*."""
        while self._number == seen:
            await self._moved.wait()
