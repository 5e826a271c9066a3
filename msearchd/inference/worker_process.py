"""One model's worker as the daemon sees it: started on first use, watched while it works, restarted with back-off.

In: requests. Out: their frames. A frame must come at least every `batch_timeout_s` while anything is asked for: there
is one per batch, so that is the time limit of a batch; beyond it the worker hangs and is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec, DeadlineExpired, KeptChild, LinkLost, Reply, Starter

log = structlog.get_logger(__name__)

#: The wire's own deadline; the watch below is the one that acts.
_FOREVER_S = 10 * 365 * 86400.0
#: A restart that is due within this time is waited for; a longer back-off is told to the caller.
_PATIENCE_S = 5.0


class StartFailed(errors.RetryLater):
    """The worker ended, or was not ready in time, while it loaded: no request is to blame."""


class WorkerProcess:
    """Keeps one worker for callers who do not care when it starts or restarts. Owned by one resident."""

    def __init__(self, spec: ChildSpec, *, batch_timeout_s: float, start: Starter = Child.start) -> None:
        self._kept = KeptChild(spec, start=start)
        self._batch_timeout_s = batch_timeout_s
        self._loading: asyncio.Task[Child] | None = None
        self._open_requests = 0
        self._progress_at = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._died_at_work = False
        self._forgiven = 0
        self.hangs = 0

    @property
    def child(self) -> Child | None:
        """The running process, or None."""
        return self._kept.child

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._kept.restarts + self._forgiven

    @property
    def is_loading(self) -> bool:
        """True from the start of the process until it is warm."""
        return self._loading is not None and not self._loading.done()

    async def ready(self) -> Child:
        """The warm worker. Loading goes on when the caller is cancelled: the next one finds it further along.

        Raises what the worker's start raises (Misconfigured), StartFailed, or RetryLater during a long back-off.
        """
        patience_s = _PATIENCE_S
        while True:
            if (child := self._kept.child) is not None:
                return child
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._kept.ready(), name=f"load:{self._kept.spec.name}")
                # Its error reaches those who wait; where nobody does any more, the next call meets it again.
                self._loading.add_done_callback(lambda task: None if task.cancelled() else task.exception())
            try:
                return await asyncio.shield(self._loading)
            except (LinkLost, DeadlineExpired) as error:
                raise StartFailed(str(error), after_s=2.0) from error
            except errors.RetryLater as error:
                if error.after_s > patience_s:
                    raise
                patience_s -= error.after_s
                await asyncio.sleep(error.after_s)

    async def stream(
        self, op: str, args: Mapping[str, Any] | None = None, body: bytes | memoryview = b"", *, lane: int
    ) -> AsyncGenerator[Reply, None]:
        """Frames of the answer. Raises the worker's error, or LinkLost where it died or was killed for hanging."""
        child = await self.ready()
        self._began()
        try:
            frames = child.link.stream(op, args, body, deadline_s=_FOREVER_S, lane=lane)
            async with contextlib.aclosing(frames):
                async for reply in frames:
                    self._progress_at = asyncio.get_running_loop().time()
                    yield reply
        except LinkLost:
            self._died_at_work = True
            raise
        finally:
            self._open_requests -= 1

    def begin_smaller(self, tokens: int) -> None:
        """Let the next start begin with batches of *tokens* padded tokens; it grows back by itself."""
        self.begin_with(first_tokens=tokens)

    def begin_with(self, **start: Any) -> None:
        """Let the next start have these arguments too."""
        self._kept.spec = replace(self._kept.spec, start={**self._kept.spec.start, **start})

    async def forgive(self) -> None:
        """Let the next start be at once: the search for the text that killed it ends by itself, back-off would only wait."""
        if self._died_at_work and self._kept.child is None and not self.is_loading:
            self._died_at_work = False
            self._forgiven += 1
            await self._kept.release()

    async def release(self) -> None:
        """End the process to give its memory back; the next call starts it again."""
        await self._end_loading()
        await self._kept.release()

    async def stop(self) -> None:
        """End the process for good."""
        if self._watch is not None:
            self._watch.cancel()
        await self._end_loading()
        await self._kept.stop()

    async def _end_loading(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)

    def _began(self) -> None:
        loop = asyncio.get_running_loop()
        if self._open_requests == 0:
            self._progress_at = loop.time()
        self._open_requests += 1
        if self._watch is None:
            self._watch = loop.call_at(self._progress_at + self._batch_timeout_s, self._check_progress)

    def _check_progress(self) -> None:
        self._watch = None
        if self._open_requests == 0 or (child := self._kept.child) is None:
            return
        loop = asyncio.get_running_loop()
        due = self._progress_at + self._batch_timeout_s
        if loop.time() < due:
            self._watch = loop.call_at(due, self._check_progress)
            return
        self.hangs += 1
        log.warning(
            "worker hangs", worker=self._kept.spec.name, pid=child.pid, silent_s=round(self._batch_timeout_s, 1)
        )
        child.kill()  # its requests hear LinkLost
