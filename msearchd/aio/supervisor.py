"""Keep services running: restart one that fell, give up on one that keeps falling, stop all in reverse order.

In: services, in the order in which they depend on each other. Out: `run` returns when asked to stop, and raises where a
service that the daemon cannot do without is lost. Every task has a name and this owner; nothing outlives `run`, except
a service that ignores its cancellation beyond its time, which is named in the log.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio import backoff

log = structlog.get_logger(__name__)

_BASE_S: Final = 0.5
_CAP_S: Final = 60.0


class ServiceState(enum.StrEnum):
    """Where a service stands."""

    RUNNING = "running"
    WAITING = "waiting"  # it fell and is restarted after a wait
    LOST = "lost"  # it fell too often, or is misconfigured; only a restart of the daemon brings it back
    ENDED = "ended"  # it returned, or was stopped


@dataclass(frozen=True, slots=True)
class Service:
    """`factory` makes the coroutine anew for each start. Without a critical service the daemon is of no use."""

    name: str
    factory: Callable[[], Awaitable[None]]
    is_critical: bool = False
    #: Seconds it may take to end after its cancellation.
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service as it stands. `error` is its last one, also while it runs again."""

    name: str
    state: ServiceState
    is_critical: bool
    restarts: int
    error: str


@dataclass(slots=True)
class _Kept:
    service: Service
    task: asyncio.Task[None] | None = None
    state: ServiceState = ServiceState.RUNNING
    restarts: int = 0
    falls: int = 0  # in a row, without a healthy time between
    error: str = ""


class Supervisor:
    """Owner of all long-running tasks of the daemon."""

    def __init__(
        self, services: Sequence[Service], *, healthy_after_s: float = 60.0, max_falls: int = 6, base_s: float = _BASE_S
    ) -> None:
        self._kept = [_Kept(service) for service in services]
        self._healthy_after_s = healthy_after_s
        self._max_falls = max_falls
        self._base_s = base_s
        self._stopping = asyncio.Event()
        self._lost: errors.MsearchError | None = None

    def snapshot(self) -> tuple[ServiceStatus, ...]:
        """All services in their order."""
        return tuple(
            ServiceStatus(kept.service.name, kept.state, kept.service.is_critical, kept.restarts, kept.error)
            for kept in self._kept
        )

    def stop(self) -> None:
        """Ask `run` to stop all services and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Start all, keep them running, return after `stop`.

        Raises the error of a critical service that is lost: Misconfigured as it is, anything else as Bug. Whichever way
        it ends, cancellation included, the services are stopped in reverse order first.
        """
        try:
            for kept in self._kept:
                kept.task = asyncio.create_task(self._keep(kept), name=kept.service.name)
            await self._stopping.wait()
        finally:
            self._stopping.set()
            stopping = asyncio.ensure_future(self._stop_all())
            await asyncio.shield(stopping)
        if self._lost is not None:
            raise self._lost

    async def _keep(self, kept: _Kept) -> None:
        """Run one service, again and again, until it ends, is lost or is cancelled."""
        service, loop = kept.service, asyncio.get_running_loop()
        while True:
            kept.state = ServiceState.RUNNING
            started_at = loop.time()
            try:
                await service.factory()
            except Exception as error:  # noqa: BLE001 - whatever it is, it ends in a restart or in a loss
                kept.error = error.sentence() if isinstance(error, errors.MsearchError) else repr(error)
                kept.falls = 1 if loop.time() - started_at >= self._healthy_after_s else kept.falls + 1
                if isinstance(error, errors.Misconfigured) or kept.falls >= self._max_falls:
                    self._lose(kept, error)
                    return
                await self._wait_before_restart(kept, error)
            else:
                kept.state = ServiceState.ENDED
                if service.is_critical and not self._stopping.is_set():
                    self._lose(kept, errors.Bug(f"the service {service.name} ended by itself"))
                return

    async def _wait_before_restart(self, kept: _Kept, error: Exception) -> None:
        kept.state = ServiceState.WAITING
        kept.restarts += 1
        wait_s = backoff.delay_s(kept.falls, base_s=self._base_s, cap_s=_CAP_S)
        if isinstance(error, errors.RetryLater):
            wait_s = max(wait_s, error.after_s)
        log.error(
            "service fell",
            service=kept.service.name,
            reason=kept.error,
            falls=kept.falls,
            restart_in_s=round(wait_s, 2),
            exc_info=None if isinstance(error, errors.MsearchError) else error,
        )
        await asyncio.sleep(wait_s)

    def _lose(self, kept: _Kept, error: Exception) -> None:
        kept.state = ServiceState.LOST
        log.error("service lost", service=kept.service.name, reason=kept.error or str(error), falls=kept.falls)
        if kept.service.is_critical and self._lost is None:
            if isinstance(error, errors.Misconfigured | errors.Bug):
                self._lost = error
            else:
                self._lost = errors.Bug(f"the service {kept.service.name} is lost: {kept.error}")
                self._lost.__cause__ = error
            self._stopping.set()

    async def _stop_all(self) -> None:
        for kept in reversed(self._kept):
            task = kept.task
            if task is None or task.done():
                continue
            task.cancel()
            _, still = await asyncio.wait({task}, timeout=kept.service.stop_grace_s)
            if still:
                log.error("service does not stop", service=kept.service.name, waited_s=kept.service.stop_grace_s)
            elif kept.state is not ServiceState.LOST:
                kept.state = ServiceState.ENDED
