"""Stands still before the disk of data_dir is full, and goes on when there is room.

In: free bytes of the disk, looked at once a minute when idle and every few seconds at work. Out: the pause "disk-low",
and a sentence for the status. A full disk would kill the store process with SIGBUS and fail every write.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.jobs.queue import JobQueue

log = structlog.get_logger(__name__)

DISK_LOW: Final = "disk-low"
_IDLE_EVERY_S: Final = 60.0
#: At work, and while it is low: a copy of large files fills a disk at about 1 GB/s, min_free_mb is 1 GB.
_BUSY_EVERY_S: Final = 3.0


class DiskWatch:
    """One service; owns the pause "disk-low"."""

    def __init__(self, queue: JobQueue, data_dir: Path, *, min_free_bytes: int) -> None:
        self._queue = queue
        self._data_dir = data_dir
        self._min_free_bytes = min_free_bytes
        self._free_bytes: int | None = None

    @property
    def is_low(self) -> bool:
        """True while less is free than must be."""
        return self._free_bytes is not None and self._free_bytes < self._min_free_bytes

    def problems(self) -> tuple[str, ...]:
        """What a person should do, as sentences."""
        if not self.is_low or self._free_bytes is None:
            return ()
        free, least = self._free_bytes >> 20, self._min_free_bytes >> 20
        sentence = f"indexing stands still: {free} MB are free on the disk of {self._data_dir}, it needs {least} MB"
        return (f"{sentence}; free some space (or lower store.min_free_mb), it goes on by itself",)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            seen = self._queue.changes_seen()
            # A full disk cannot even note the pause; then every write fails and waits, which is as good.
            with contextlib.suppress(errors.RetryLater):
                await self.look()
            if not self.is_low:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_EVERY_S):
                        await self._queue.wait_change(seen)
            await asyncio.sleep(_BUSY_EVERY_S)

    async def look(self) -> None:
        """Compare once, and pause or resume. Raises RetryLater where that cannot be written."""
        try:
            free = shutil.disk_usage(self._data_dir).free
        except OSError as error:
            log.warning("free space unknown", reason=str(error))
            return
        was_low, self._free_bytes = self.is_low, free
        if self.is_low != was_low:
            log.warning(
                "disk low" if self.is_low else "disk has room again",
                free_mb=free >> 20,
                least_mb=self._min_free_bytes >> 20,
            )
        is_paused = DISK_LOW in await self._queue.pauses()
        if self.is_low and not is_paused:
            await self._queue.pause(DISK_LOW)
        elif not self.is_low and is_paused:
            await self._queue.resume(DISK_LOW)
