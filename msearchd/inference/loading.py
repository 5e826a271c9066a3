"""From a spec to a warm worker: room is made, engines are tried in turn, what the worker tells at its start is checked.

In: a model's spec, and its owner's word on room and device. Out: the facts of the loaded model. Loading goes on when whoever
asked for it is cancelled; where engine "auto" meets one that is not usable, the next one is tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec
from msearchd.inference.residency import Seat
from msearchd.inference.spec import ModelSpec
from msearchd.inference.worker_process import WorkerProcess
from msearchd.inference.worker_settings import WorkerSettings

log = structlog.get_logger(__name__)

_WORKER_MODULE: Final = "msearchd.inference.worker.main"
#: A start that failed for good (package missing) is not tried again at every call: each costs seconds of CPU.
_REMEMBER_FAILURE_S: Final = 15.0


class Owner(Protocol):
    """Whose worker it is."""

    async def make_room(self) -> None:
        """Return once the worker may start. Raises DoesNotFit, RetryLater."""
        ...

    async def make_more_room(self) -> bool:
        """Free whatever can be freed; False where that is nothing."""
        ...

    def start_arguments(self) -> Mapping[str, Any]:
        """What the next start is told beside the spec: device, learned sizes."""
        ...

    def note_loaded(self, facts: Mapping[str, Any]) -> None:
        """Hear what a worker told that was just loaded."""
        ...

    def note_start_ended(self) -> None:
        """Hear that a start is over, well or not."""
        ...


class Loading:
    """Keeps the worker of one copy of a model. Owned by a LoadedModel."""

    def __init__(self, spec: ModelSpec, settings: WorkerSettings, *, seat: Seat, owner: Owner) -> None:
        self._spec = spec
        self._settings = settings
        self._seat = seat
        self._owner = owner
        self._choice = 0
        self._starting: asyncio.Task[Mapping[str, Any]] | None = None
        self._failure: tuple[float, errors.Misconfigured] | None = None
        self.worker = self._make_worker()
        self.facts: Mapping[str, Any] = {}  # of the worker that was loaded last
        self.loads = 0

    @property
    def engine(self) -> str:
        """The engine in use, or to be tried next."""
        return self._spec.engines[self._choice].engine

    @property
    def python(self) -> str:
        """Its interpreter."""
        return self._spec.engines[self._choice].python

    @property
    def failure(self) -> errors.Misconfigured | None:
        """Why it cannot be loaded, while that is remembered."""
        return self._failure[1] if self._failure is not None and time.monotonic() < self._failure[0] else None

    async def ready(self) -> Mapping[str, Any]:
        """As LoadedModel.ready."""
        if (failure := self.failure) is not None:
            raise failure
        if (child := self.worker.child) is not None and self.facts is child.facts:
            return self.facts
        self.start_soon()
        starting = cast("asyncio.Task[Mapping[str, Any]]", self._starting)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():  # unloaded meanwhile, not our caller's doing
                message = f"model {self._spec.key!r} was unloaded while it loaded"
                raise errors.RetryLater(message) from None
            raise

    def start_soon(self) -> None:
        """Begin to load it; whoever calls next waits for that."""
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(), name=f"start:{self._seat}")
            # Its error reaches those who wait; where nobody does any more, the next call meets it again.
            self._starting.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def end_starting(self) -> None:
        """Give a start up that is under way."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    async def _start(self) -> Mapping[str, Any]:
        try:
            await self._owner.make_room()
            try:
                return await self._load()
            except errors.RetryLater as error:
                # What looked like enough was not: everybody who is idle goes, and it is tried once more.
                if not is_memory_trouble(error) or not await self._owner.make_more_room():
                    raise
                log.warning("model loads again with more room", model=self._seat, reason=str(error))
                return await self._load()
        finally:
            self._owner.note_start_ended()

    async def _load(self) -> Mapping[str, Any]:
        while True:
            self.worker.begin_with(**self._owner.start_arguments())
            try:
                child = await self.worker.ready()
            except errors.Misconfigured as error:
                if not await self._try_next_engine(error):
                    self._failure = (time.monotonic() + _REMEMBER_FAILURE_S, error)
                    raise
            else:
                return self._accept(child)

    async def _try_next_engine(self, error: errors.Misconfigured) -> bool:
        """True where another engine can be tried: this one's package, version or interpreter is what is wrong, or it
        cannot read these weights (an older library may not know a newer tokenizer).
        """
        if not error.key.startswith(("engine:", "python:", "source:")) or self._choice + 1 >= len(self._spec.engines):
            return False
        log.warning(
            "engine not usable, trying the next", model=self._spec.key, engine=self.engine, reason=error.sentence()
        )
        old, self._choice = self.worker, self._choice + 1
        self.worker = self._make_worker()
        await old.stop()
        return True

    def _accept(self, child: Child) -> Mapping[str, Any]:
        if child.facts is not self.facts:
            card = self._spec.card
            promised = card.dim if card is not None and self._spec.serves == "text" else None
            if promised is not None and promised != child.facts["dim"]:
                message = f"{self._spec.key!r} promises vectors of {promised} numbers and makes {child.facts['dim']}"
                raise errors.Misconfigured(message, key=f"model:{self._spec.key}", hint="fetch the model again")
            self.facts, self._failure = child.facts, None
            self.loads += 1
            self._owner.note_loaded(child.facts)
        return self.facts

    def _make_worker(self) -> WorkerProcess:
        choice = self._spec.engines[self._choice]
        start = {
            **self._spec.start,
            "engine": choice.engine,
            "engine_file": str(self._settings.engine_files.get(choice.engine, "")),
        }
        spec = ChildSpec(
            name=f"model:{self._spec.key}",
            module=_WORKER_MODULE,
            start=start,
            python=choice.python,
            env=self._spec.env,
            limits=self._settings.limits,
            ready_deadline_s=self._settings.load_timeout_s,
        )
        return WorkerProcess(
            spec, batch_timeout_s=self._settings.batch_timeout_s, start=self._settings.starter_for(choice, self._spec)
        )


def is_memory_trouble(error: errors.MsearchError) -> bool:
    """True where a load failed for want of memory: it said so, or the kernel killed it."""
    text = str(error)
    return "not enough memory" in text or "SIGKILL" in text
