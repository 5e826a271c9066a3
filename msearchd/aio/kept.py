"""A child that is kept: started on first use, restarted with back-off after a crash, ended when nobody needs it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio import backoff, wire
from msearchd.aio.link import DeadlineExpired, Reply
from msearchd.aio.process import Child, ChildSpec

log = structlog.get_logger(__name__)

#: Starts a child of a spec: Child.start, or something faster that ends in Child.attach (a fork server).
Starter = Callable[[ChildSpec], Awaitable[Child]]


class KeptChild:
    """Keeps one child for callers who do not care when it starts or restarts.

    Started on first use; after a crash the next call starts it again, but not before its back-off is over
    (RetryLater says when). Each `forgive_every_s` of life forgives one crash: a child that dies now and then is back at
    once, one that dies at once each time waits longer and longer.
    """

    def __init__(self, spec: ChildSpec, *, forgive_every_s: float = 5.0, start: Starter = Child.start) -> None:
        self.spec = spec
        self._start_child = start
        self._forgive_every_s = forgive_every_s
        self._child: Child | None = None
        self._starting = asyncio.Lock()
        self._crashes = 0
        self._up_since: float | None = None  # loop time of the last start that went well
        self._may_start_at = 0.0
        self._restarts = 0
        self._is_closed = False

    @property
    def child(self) -> Child | None:
        """The running child, or None."""
        return self._child if self._child is not None and self._child.is_alive else None

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._restarts

    async def ready(self) -> Child:
        """The running child, started if need be. Raises RetryLater during back-off, or what the start raises."""
        if (child := self.child) is not None:
            return child
        async with self._starting:
            if (child := self.child) is not None:
                return child
            return await self._start()

    async def call(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> Reply:
        """As Link.call on a running child. On DeadlineExpired the child is killed: it hangs."""
        child = await self.ready()
        try:
            return await child.link.call(op, args, body, deadline_s=deadline_s, lane=lane)
        except DeadlineExpired:
            child.kill()
            raise

    async def stream(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> AsyncGenerator[Reply, None]:
        """As Link.stream on a running child. On DeadlineExpired the child is killed: it hangs."""
        child = await self.ready()
        try:
            async with contextlib.aclosing(
                child.link.stream(op, args, body, deadline_s=deadline_s, lane=lane)
            ) as replies:
                async for reply in replies:
                    yield reply
        except DeadlineExpired:
            child.kill()
            raise

    async def stop(self) -> None:
        """End the child for good; later calls raise RetryLater."""
        self._is_closed = True
        await self.release()

    async def release(self) -> None:
        """End the child to give its memory back; the next call starts it again without back-off."""
        async with self._starting:
            if self._child is not None:
                child, self._child = self._child, None
                await child.stop()

    async def _start(self) -> Child:
        loop = asyncio.get_running_loop()
        if self._is_closed:
            message = f"{self.spec.name} is stopped"
            raise errors.RetryLater(message)
        if self._child is not None:  # it died since the last call
            ended, self._child = self._child, None
            await ended.stop(grace_s=0)
            self._note_crash(ended.ended_at or loop.time(), ended.describe_end())
        wait_s = self._may_start_at - loop.time()
        if wait_s > 0:
            message = f"{self.spec.name} restarts in {wait_s:.1f} s after {self._crashes} crashes"
            raise errors.RetryLater(message, after_s=wait_s)
        try:
            self._child = await self._start_child(self.spec)
        except errors.Misconfigured:
            raise  # no crash: whoever puts it right asks again, and waits for nothing
        except errors.MsearchError as error:
            self._note_crash(loop.time(), str(error))
            raise
        self._up_since = loop.time()
        return self._child

    def _note_crash(self, ended_at: float, reason: str) -> None:
        up_s = 0.0 if self._up_since is None else max(0.0, ended_at - self._up_since)
        self._up_since = None
        self._crashes = max(0, self._crashes - int(up_s // self._forgive_every_s)) + 1
        self._restarts += 1
        # The first restart is at once: one bad file must not cost its neighbours a wait.
        wait_s = 0.0 if self._crashes == 1 else backoff.delay_s(self._crashes - 1, base_s=0.2, cap_s=30.0)
        self._may_start_at = ended_at + wait_s
        log.warning(
            "child ended", child=self.spec.name, crashes=self._crashes, restart_in_s=round(wait_s, 2), reason=reason
        )
