"""Server-sent events: a stream of Event as text/event-stream, with heartbeats, until the caller or the daemon leaves.

In: an async iterator of Event. Out: ASGI messages. Never buffers: a slow reader is waited for, the bus keeps its ring.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import structlog
from starlette.types import Receive, Send

from msearchd.control.events import Event

log = structlog.get_logger(__name__)

#: Shorter than the idle limits of usual proxies and of our own client.
HEARTBEAT_S = 15.0


def encoded(event: Event) -> bytes:
    """One event in the format of the HTML standard (section "Server-sent events"). ASCII, so lone surrogates pass."""
    return f"id: {event.id}\nevent: {event.event}\ndata: {json.dumps(event.data)}\n\n".encode("ascii")


def _result(following: asyncio.Future[Event | None]) -> Event | None:
    """The next event; None at the end, and where the source failed: the answer has begun, its status stands."""
    try:
        return following.result()
    except Exception:
        log.exception("event stream failed")
        return None


async def until_gone(receive: Receive) -> None:
    """Return when the caller has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def serve_events(
    events: AsyncIterator[Event],
    receive: Receive,
    send: Send,
    *,
    closing: asyncio.Event,
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Send events as they come, a comment every *heartbeat_s* of silence; end with the iterator, the caller or us."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b": here\nretry: 2000\n\n", "more_body": True})
    gone = asyncio.create_task(until_gone(receive), name="sse-gone")
    closed = asyncio.create_task(closing.wait(), name="sse-closing")
    following = asyncio.ensure_future(anext(events, None))
    try:
        while not gone.done():
            waited = {gone, closed, following}
            await asyncio.wait(waited, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            if is_news := following.done():
                if (event := _result(following)) is None:
                    break
                await send({"type": "http.response.body", "body": encoded(event), "more_body": True})
                following = asyncio.ensure_future(anext(events, None))
            if closed.done() or gone.done():
                break
            if not is_news:
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
        if not gone.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        for task in (gone, closed, following):
            task.cancel()
        await asyncio.gather(gone, closed, following, return_exceptions=True)
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
