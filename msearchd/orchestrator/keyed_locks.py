"""One lock per key, alive only while somebody holds or waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable


class KeyedLocks:
    """Serialises work on the same key (two files with the same bytes are read and embedded once)."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the lock of *key*; waits for whoever holds it."""
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)

    @contextlib.asynccontextmanager
    async def hold_all(self, keys: set[Hashable]) -> AsyncIterator[None]:
        """Hold several; always taken in one order, so that two groups never wait for each other."""
        async with contextlib.AsyncExitStack() as stack:
            for key in sorted(keys, key=repr):
                await stack.enter_async_context(self.hold(key))
            yield
