"""Extract workers: one file at a time each, limited, replaced when they fail, grow or have read enough. Daemon side.

In: an operation and its arguments. Out: the frames of the answer, or the reason why the worker did not survive the
file. The file in work is the only one that a dying worker can cost: requests wait here, not in a worker's queue.

    waiting (by urgency) ──▶ idle worker ──▶ answer │ recycled after N files
                                        └──▶ crash, hang, memory: killed, reaped aside, a fresh one takes its place
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec, DeadlineExpired, LinkLost

log = structlog.get_logger(__name__)

#: A worker that nobody used for so long is ended if it is large: what its parsers and models hold is given back.
_IDLE_S: Final = 60.0
#: A worker that saw text and documents alone has 17 to 50 MiB; it stays, so that the next saved note need not wait 0.1
#: s for a start. With the type detector it has 100, with OCR 300 and more.
_KEEP_IDLE_BYTES: Final = 64 * 1024**2
#: The per-frame limit is ours; this one only has to be longer than any file takes.
_WHOLE_ANSWER_S: Final = 24 * 3600.0
_END_NOTICE_S: Final = 2.0
_CLOSE_S: Final = 10.0
_STOPPED: Final = "the extract workers are stopped"


class WorkerDied(errors.MsearchError):
    """The worker ended while it was at one file. `is_outside` where somebody else killed it (SIGKILL, SIGTERM)."""

    def __init__(self, reason: str, *, is_outside: bool) -> None:
        super().__init__(reason)
        self.is_outside = is_outside


class TookTooLong(errors.MsearchError):
    """The worker gave no sign of life for one file within the time limit and was killed."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What the workers do now. Counters since the start of the daemon."""

    workers: int  # running processes
    busy: int
    waiting: int
    files: int
    deaths: int  # crashes, hangs, memory limits
    recycled: int
    resident_bytes: int


@dataclass(slots=True, eq=False)
class _Seat:
    """A place for one worker. Owned by whoever took it from `_idle`."""

    child: Child | None = None
    files: int = 0
    last: bytes = b""  # what its worker served last, where that matters
    idle_since: float = 0.0


class WorkerPool:
    """At most *size* workers, started when needed. One loop, no locks: between two awaits nobody interferes."""

    def __init__(
        self, spec: ChildSpec, *, size: int, recycle_after: int, recycle_bytes: int, idle_s: float = _IDLE_S
    ) -> None:
        self._spec, self._recycle_after, self._recycle_bytes = spec, recycle_after, recycle_bytes
        self._idle_s, self._keep_idle_bytes = idle_s, _KEEP_IDLE_BYTES
        self._seats = [_Seat() for _ in range(size)]
        self._idle = list(self._seats)
        self._waiting: list[tuple[int, int, asyncio.Future[_Seat]]] = []  # heap by (urgency, arrival)
        self._arrivals = itertools.count()
        self._aside: set[asyncio.Task[None]] = set()  # ends of retired workers
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._all_idle = asyncio.Event()
        self._all_idle.set()
        self._files = self._deaths = self._recycled = 0

    async def visit(
        self, op: str, args: Mapping[str, Any], *, urgency: int, silence_s: float, prefer: bytes = b""
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield the frames of the answer to *op*, raw bytes as "body"; the lowest *urgency* goes first.

        Raises what the worker answers; WorkerDied or TookTooLong where it did not survive; RetryLater when none can
        start. Left early (cancelled, closed), the worker is replaced, for it may compute on. *prefer* names what a worker
        may still have open: where the one that served that name last is idle, it serves this.
        """
        seat = await self._take(urgency, prefer)
        seat.last = prefer
        is_answered = False
        try:
            child = await self._started(seat)
            seat.files += 1
            self._files += 1
            try:
                stream: Any = child.link.stream(op, args, deadline_s=_WHOLE_ANSWER_S)
                async with contextlib.aclosing(stream) as frames:
                    while (frame := await _next(frames, silence_s)) is not None:
                        if not frame.more:
                            is_answered = True
                        if frame.args:
                            # Pixels and PCM travel raw beside the header: packed into it they are copied twice more.
                            yield {**frame.args, "body": frame.body} if frame.body else frame.args
            except TimeoutError:
                self._deaths += 1
                message = f"no answer within {silence_s:g} s"
                raise TookTooLong(message) from None
            except (LinkLost, DeadlineExpired) as error:
                if self._is_closed:
                    raise errors.RetryLater(_STOPPED) from error
                self._deaths += 1
                raise await _death_of(child) from error
            except errors.MsearchError:
                is_answered = True  # it said no and lives
                raise
        finally:
            self._give_back(seat, is_healthy=is_answered)

    def status(self) -> PoolStatus:
        """A frozen snapshot."""
        children = [seat.child for seat in self._seats if seat.child is not None and seat.child.is_alive]
        return PoolStatus(
            len(children),
            len(self._seats) - len(self._idle),
            len(self._waiting),
            self._files,
            self._deaths,
            self._recycled,
            sum(child.resident_bytes() for child in children),
        )

    async def close(self) -> None:
        """End all workers; whoever waits or is being served hears RetryLater."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        while self._waiting:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_exception(errors.RetryLater(_STOPPED))
        for seat in self._seats:
            self._retire(seat)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._all_idle.wait()  # one that was starting is retired by who started it
        if self._aside:
            await asyncio.wait(self._aside, timeout=_CLOSE_S)

    # -- seats --------------------------------------------------------------------------------------------------------

    async def _take(self, urgency: int, prefer: bytes = b"") -> _Seat:
        if self._is_closed:
            raise errors.RetryLater(_STOPPED)
        self._all_idle.clear()
        if self._idle:
            if prefer:
                self._idle.sort(key=lambda seat: seat.last == prefer)
            return self._idle.pop()  # the one used last: its caches are warm, the others may go idle
        future: asyncio.Future[_Seat] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._arrivals), future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._hand_on(future.result())  # a seat came in the same moment
            raise

    def _give_back(self, seat: _Seat, *, is_healthy: bool) -> None:
        child = seat.child
        if child is not None:
            if not is_healthy or not child.is_alive:
                self._retire(seat)
            elif seat.files >= self._recycle_after or child.resident_bytes() > self._recycle_bytes:
                self._recycled += 1
                self._retire(seat)
        self._hand_on(seat)

    def _hand_on(self, seat: _Seat) -> None:
        while self._waiting:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(seat)
                return
        loop = asyncio.get_running_loop()
        seat.idle_since = loop.time()
        self._idle.append(seat)
        if len(self._idle) == len(self._seats):
            self._all_idle.set()
        if self._sweeper is None and not self._is_closed:
            self._sweeper = loop.call_later(self._idle_s, self._sweep)

    def _sweep(self) -> None:
        """Retire large workers that were idle for long; look again while there are others."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        large = [seat for seat in self._idle if seat.child and seat.child.resident_bytes() > self._keep_idle_bytes]
        waiting = [seat for seat in large if loop.time() - seat.idle_since < self._idle_s]
        for seat in large:
            if seat not in waiting:
                self._retire(seat)
        if waiting:
            self._sweeper = loop.call_later(self._idle_s, self._sweep)

    async def _started(self, seat: _Seat) -> Child:
        if seat.child is not None and seat.child.is_alive:
            return seat.child
        self._retire(seat)
        try:
            seat.child = await Child.start(self._spec)
        except (LinkLost, DeadlineExpired) as error:
            # Not this file's fault: it never saw it.
            message = f"an extract worker could not start: {error}"
            raise errors.RetryLater(message, after_s=5.0) from error
        if self._is_closed:
            raise errors.RetryLater(_STOPPED)
        return seat.child

    def _retire(self, seat: _Seat) -> None:
        """Kill the seat's worker and reap it aside: one that hangs in the kernel (a dead share) must not hold the
        seat.
        """
        child, seat.child, seat.files = seat.child, None, 0
        if child is None:
            return
        child.kill()
        ending = asyncio.get_running_loop().create_task(
            child.stop(grace_s=0), name=f"reap:{self._spec.name}:{child.pid}"
        )
        self._aside.add(ending)
        ending.add_done_callback(self._aside.discard)


async def _next(frames: AsyncIterator[Any], silence_s: float) -> Any | None:
    async with asyncio.timeout(silence_s):
        return await anext(frames, None)


async def _death_of(child: Child) -> WorkerDied:
    """Why *child* ended, as soon as the kernel tells."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_NOTICE_S):
            await child.wait_ended()
    reason = child.describe_end()
    is_outside = "SIGKILL" in reason or "SIGTERM" in reason
    return WorkerDied(reason, is_outside=is_outside)
