"""The index service: recovery first, then the lanes; and spaces whose files were damaged, made anew.

In: the dispatcher and what must be true before it writes points. Out: jobs done. A store that is down delays vectors
alone: new files are found by words and names meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from msearchd import errors
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.dispatcher import Dispatcher
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.recovery import Recovery
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog
from msearchd.store.client import StoreProcess

log = structlog.get_logger(__name__)

_RETRY_START_S: Final = 5.0


class Indexing:
    """Two services, `run` and `repair_damage`; owns their troubles."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: StoreProcess,
        arrears: Arrears,
        change: ModelChange,
        recovery: Recovery,
        spaces: Spaces,
        dispatcher: Dispatcher,
        recovered: asyncio.Event,
        is_draining: Callable[[], bool],
        drain_s: float,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._arrears = arrears
        self._change = change
        self._recovery = recovery
        self._spaces = spaces
        self._dispatcher = dispatcher
        self._recovered = recovered
        self._is_draining = is_draining
        self._drain_s = drain_s
        self._troubles: dict[str, str] = {}  # by duty: what it waits for now
        self._compared = asyncio.Event()  # what is owed since the last life is in the queue
        self._troubled = asyncio.Event()

    def problems(self) -> tuple[str, ...]:
        """What it waits for, as sentences."""
        return tuple(self._troubles.values())

    async def compared(self, *, deadline_s: float) -> None:
        """Wait until everything that the last life left behind is in the queue, or until that waits for something."""
        waits = [asyncio.create_task(event.wait()) for event in (self._compared, self._troubled)]
        try:
            await asyncio.wait(waits, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def run(self) -> None:
        """Work on the queue; what writes points waits until catalog and store agree. Stopped, drain."""
        try:
            # First of all: which model a step owes vectors to, and which one a question is asked with.
            await self._until_it_works("models", self._change.start)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recover(), name="recovery")
                group.create_task(self._dispatcher.run(), name="dispatcher")
        finally:
            await self._dispatcher.drain(deadline_s=self._drain_s if self._is_draining() else 0)
            if self._is_draining():
                with contextlib.suppress(errors.MsearchError, TimeoutError):
                    async with asyncio.timeout(self._drain_s):
                        await self._spaces.settle()

    async def repair_damage(self) -> None:
        """A space whose files were damaged and set aside is embedded again. Serves until cancelled."""
        while True:
            damage = await self._store.next_damage()
            log.error("vector files damaged", space=damage.space, reason=damage.reason)
            for space in await self._catalog.spaces():
                if space.name == damage.space:
                    await self._until_it_works("repair", lambda s=space: self._recovery.compare(s))  # type: ignore[misc]

    async def _recover(self) -> None:
        """Make catalog and store agree, once; then the lanes that write points open, and what else is owed is found."""
        if not self._recovered.is_set():
            await self._until_it_works("arrears", self._arrears.settle)
            await self._until_it_works("recovery", self._recovery.at_start)
            self._recovered.set()
            await self._until_it_works("arrears", self._arrears.embed)
            self._compared.set()

    async def _until_it_works(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await work()
            except errors.MsearchError as error:
                self._troubles[name] = f"{name}: {error.sentence()}"
                self._troubled.set()
                log.warning("waiting", service=name, reason=error.sentence())
                await asyncio.sleep(getattr(error, "after_s", _RETRY_START_S))
            else:
                self._troubles.pop(name, None)
                if not self._troubles:
                    self._troubled.clear()
                return
