"""Parent side of the wire: many requests in flight over one socket, each with a deadline.

In: op, plain arguments, raw body. Out: the reply, or a stream of replies, or the error that the child sent.
Owns the socket; knows nothing of processes (aio.process does).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msearchd import errors
from msearchd.aio import wire

if TYPE_CHECKING:
    import socket


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer frame of a child."""

    args: Mapping[str, Any]
    body: bytes = b""
    more: bool = False  # another frame of the same answer follows


class LinkLost(errors.RetryLater):
    """The child ended, or the socket broke, before the answer came."""


class DeadlineExpired(errors.RetryLater):
    """The answer did not come in time. The child may still be at it: the owner decides whether to kill it."""


@dataclass(slots=True)
class _Waiter:
    replies: asyncio.Queue[Reply | errors.MsearchError]


class Link:
    """Request multiplexer over a connected socket. One reading task, owned here; closed by `close`."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        describe_end: Callable[[], str],
        settle_end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._describe_end = describe_end
        self._settle_end = settle_end
        self._waiters: dict[int, _Waiter] = {}
        self._ids = itertools.count(1)
        self._ended = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        hello: Mapping[str, Any],
        *,
        name: str,
        deadline_s: float,
        describe_end: Callable[[], str],
        settle_end: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Link, Mapping[str, Any]]:
        """Send *hello*, wait for the ready frame; return the link and the child's facts.

        *describe_end* says why the child ended; *settle_end* is awaited first: it returns when that is known, soon.
        Raises what the child reports, LinkLost if it ends first, DeadlineExpired after *deadline_s*.
        """
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        link = cls(reader, writer, describe_end=describe_end, settle_end=settle_end)
        try:
            writer.writelines(wire.encode({"id": 0, "op": "hello", "args": dict(hello)}))
            async with asyncio.timeout(deadline_s):
                header, _ = await wire.read_frame(reader)
        except TimeoutError as error:
            writer.close()
            message = f"{name} was not ready within {deadline_s:g} s"
            raise DeadlineExpired(message) from error
        except (asyncio.IncompleteReadError, ConnectionError, wire.WireError) as error:
            writer.close()
            if settle_end is not None:
                await settle_end()
            message = f"{name} ended while starting: {describe_end()}"
            raise LinkLost(message) from error
        except BaseException:
            writer.close()
            raise
        if not header.get("ok"):
            writer.close()
            raise errors.from_wire(header.get("error", {}))
        link._reading = asyncio.create_task(link._read_replies(), name=f"link:{name}")
        return link, header.get("args", {})

    @property
    def is_open(self) -> bool:
        """False once the child is gone."""
        return not self._ended.is_set()

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        return len(self._waiters)

    async def wait_ended(self) -> None:
        """Return once the child is gone."""
        await self._ended.wait()

    async def call(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> Reply:
        """Send one request and return its one answer.

        Raises the child's error, LinkLost, or DeadlineExpired. Cancelled here, the child is told to skip it.
        """
        async with contextlib.aclosing(self.stream(op, args, body, deadline_s=deadline_s, lane=lane)) as replies:
            last = Reply({})
            async for reply in replies:
                last = reply
            return last

    async def stream(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> AsyncGenerator[Reply, None]:
        """Send one request and yield every frame of its answer, the closing one included.

        *deadline_s* is for the whole answer; a child that does not even take the request runs into it as well.
        """
        if self._ended.is_set():
            raise LinkLost(self._describe_end())
        request_id = next(self._ids)
        # Unbounded on purpose: the child produces one request at a time and the caller reads as it stores.
        waiter = self._waiters[request_id] = _Waiter(asyncio.Queue())
        due = asyncio.get_running_loop().time() + deadline_s
        is_over = False
        try:
            self._writer.writelines(
                wire.encode({"id": request_id, "op": op, "lane": lane, "args": dict(args or {})}, body)
            )
            async with asyncio.timeout_at(due):
                await self._writer.drain()
            while not is_over:
                async with asyncio.timeout_at(due):
                    item = await waiter.replies.get()
                if isinstance(item, errors.MsearchError):
                    is_over = True
                    raise item
                is_over = not item.more
                yield item
        except TimeoutError as error:
            message = f"no answer to {op!r} within {deadline_s:g} s"
            raise DeadlineExpired(message) from error
        except ConnectionError as error:
            await self._ended.wait()  # the reading task meets the end as well and waits for its reason
            raise LinkLost(self._describe_end()) from error
        finally:
            self._waiters.pop(request_id, None)
            if not is_over and not self._ended.is_set():
                with contextlib.suppress(ConnectionError, RuntimeError):
                    self._writer.writelines(
                        wire.encode({"id": next(self._ids), "op": "cancel", "args": {"target": request_id}})
                    )

    async def close(self) -> None:
        """Close the socket and end the reading task. Waiting calls raise LinkLost."""
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._end()

    async def _read_replies(self) -> None:
        try:
            while True:
                header, body = await wire.read_frame(self._reader)
                waiter = self._waiters.get(header["id"])
                if waiter is None:
                    continue  # cancelled or expired meanwhile
                if not header.get("ok"):
                    waiter.replies.put_nowait(errors.from_wire(header.get("error", {})))
                else:
                    waiter.replies.put_nowait(Reply(header.get("args", {}), body, bool(header.get("more"))))
        except (asyncio.IncompleteReadError, ConnectionError, wire.WireError):
            # The end of the child: told to every waiter below, with its exit status and last words.
            if self._settle_end is not None:
                await self._settle_end()
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        for waiter in self._waiters.values():
            waiter.replies.put_nowait(LinkLost(self._describe_end()))
