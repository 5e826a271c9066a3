"""Events of the daemon for whoever listens: growing ids, a bounded ring for latecomers, `lost` for those too late.

In: publish(event, data) from any service on the loop. Out: streams of Event. A slow listener costs nothing: each
holds a cursor into the one ring, so memory is bounded by the ring alone.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: About a minute of a busy first scan; a listener who was away longer hears `lost` and asks for the status.
_RING = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. `data` is plain JSON-able values; `lost` says that events before this one were missed."""

    id: int
    event: str
    data: Mapping[str, Any] = field(default_factory=dict)


class EventBus:
    """One ring, any number of listeners. Owned by the composition root; `close` ends all streams."""

    def __init__(self, *, ring: int = _RING, first_id: int | None = None) -> None:
        # Ids go on growing over restarts as long as fewer than a thousand events a second were published on average.
        self._next_id = int(time.time() * 1000) if first_id is None else first_id
        self._ring: collections.deque[Event] = collections.deque(maxlen=ring)
        self._news = asyncio.Event()
        self._is_closed = False

    def publish(self, event: str, data: Mapping[str, Any] | None = None) -> int:
        """Remember and hand out; returns the event's id. Never waits and never fails for a listener's sake."""
        published = Event(self._next_id, event, dict(data or {}))
        self._next_id += 1
        self._ring.append(published)
        self._announce()
        return published.id

    def close(self) -> None:
        """End every stream after what it has not seen yet."""
        self._is_closed = True
        self._announce()

    async def stream(self, since: int | None = None) -> AsyncIterator[Event]:
        """Events after id *since*, then new ones as they come; None begins now.

        Where events after *since* are gone from the ring (or ids began anew) the first event is `lost`, with the id of
        the last event that was missed; the listener should ask for the whole status.
        """
        cursor = self._next_id - 1 if since is None else since
        while True:
            news = self._news
            for event in self._after(cursor):
                cursor = event.id
                yield event
            if self._is_closed and cursor >= self._next_id - 1:
                return
            if cursor == self._next_id - 1:
                await news.wait()

    def _after(self, cursor: int) -> list[Event]:
        newest = self._next_id - 1
        oldest = self._ring[0].id if self._ring else self._next_id
        if cursor > newest:
            return [Event(newest, "lost", {"missed": None})]
        waiting = [event for event in self._ring if event.id > cursor] if cursor < newest else []
        if cursor + 1 < oldest:
            return [Event(oldest - 1, "lost", {"missed": oldest - 1 - cursor}), *waiting]
        return waiting

    def _announce(self) -> None:
        # A fresh Event a round: a listener between two waits cannot miss one, as it took `news` before it looked.
        news, self._news = self._news, asyncio.Event()
        news.set()
