"""Events of the daemon for whoever listens: growing ids, a bounded ring for latecomers, `lost` for those too late.

In: publish(event, data) from any service on the loop. Out: streams of Event. A slow listener costs nothing: each
holds a cursor into the one ring, so memory is bounded by the ring alone. What is costly to publish is left out while nobody
listens (`is_heard`, `skip`); who resumes across such a gap hears `lost`.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Some seconds of a busy first scan; a listener who was away longer hears `lost` and asks for the status.
_RING = 4096
#: After the last listener left events go on being kept so long: it may only have lost its connection.
_GRACE_S = 120.0

#: Every event, and what its data says. GET openapi.json tells them; a test holds that nothing else is published.
EVENTS: Final[Mapping[str, str]] = {
    "file indexed": "path, type: every step of it is done, it is found by all lists that it can be found by",
    "file skipped": "path, reason: it is found by its name only",
    "file not done": "path, step, state (delayed, blocked, failed), code, error: a step did not go well",
    "file removed": "path: it is gone, or left out by a rule from now on",
    "file moved": "path, to",
    "folder moved": "path, to: a folder below a watched one, with all in it",
    "folder gone": "path: a folder below a watched one, with all in it",
    "folder added": "path, took_in: it is watched from now on, and those in it are no longer watched by themselves",
    "folder removed": "path: it is no longer watched",
    "folder online": "path",
    "folder offline": "path, reason: its files stay in the index, flagged",
    "scan started": "path: the folder is compared with the index",
    "scan finished": "path",
    "model loaded": "model, device",
    "model unloaded": "model",
    "model unusable": "model, reason",
    "progress": "files_indexed since the start, at most once a second",
    "paused": "reason",
    "resumed": "reason; null: all reasons",
    "reset": "reset_type",
    "draining": "the daemon is about to stop",
    "lost": "missed: so many events before this one (null: not known) are gone; ask for the status",
}


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
        self._listeners = 0
        self._arrived = asyncio.Event()
        self._heard_until = 0.0  # monotonic

    @property
    def is_heard(self) -> bool:
        """True while somebody listens, or left so lately that it may resume."""
        return self._listeners > 0 or time.monotonic() < self._heard_until

    @property
    def has_listener(self) -> bool:
        """True while somebody listens."""
        return self._listeners > 0

    async def listened(self) -> None:
        """Return while or as soon as somebody listens."""
        await self._arrived.wait()

    def skip(self, count: int) -> None:
        """*count* events were not published, as nobody is there: whoever resumes from before them hears `lost`."""
        self._next_id += count
        self._ring.clear()

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
        self._listeners += 1
        self._arrived.set()
        try:
            while True:
                news = self._news
                for event in self._after(cursor):
                    cursor = event.id
                    yield event
                if self._is_closed and cursor >= self._next_id - 1:
                    return
                if cursor == self._next_id - 1:
                    await news.wait()
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._arrived.clear()
            self._heard_until = time.monotonic() + _GRACE_S

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
