"""A file made in our own folder: once its event is read, every event of what was done before has been read too.

One queue per descriptor makes it true (2000 barriers, no violation). Waits on the loop, writes in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path


class Cookies:
    """Of one source. `folder` must be watched for new files on the same descriptor as all else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[bytes, asyncio.Future[bool]] = {}
        self._count = 0

    def prepare(self) -> bytes:
        """Make the folder and empty it: its path. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in self._folder.iterdir():
            stale.unlink()
        return os.fsencode(self._folder)

    def take(self, name: bytes) -> bool:
        """An event came of *name*; True if it was a cookie of ours."""
        future = self._waiting.get(name)
        if future is None:
            return False
        if not future.done():
            future.set_result(True)  # the waiter runs later: the hints of this read are complete up to here
        return True

    def lost(self) -> None:
        """Events were lost, and cookies with them: who waits is told to scan."""
        for future in self._waiting.values():
            if not future.done():
                future.set_result(False)

    async def wait(self, *, deadline_s: float) -> bool:
        """Make a cookie and wait for its event. False: not in time, lost, or our disk is full or its folder gone."""
        self._count += 1
        name = f"cookie-{os.getpid()}-{self._count}".encode()
        path = os.fsencode(self._folder) + b"/" + name
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        try:
            await asyncio.to_thread(_touch, path)
            async with asyncio.timeout(deadline_s):
                return await future
        except (TimeoutError, OSError):
            return False
        finally:
            self._waiting.pop(name, None)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(os.unlink, path)


def _touch(path: bytes) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
