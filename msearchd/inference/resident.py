"""One model of the pool: its worker, its engine choice, its batcher, its figures.

In: samples with a lane. Out: vectors, or what is said. Loads on first use; where engine "auto" meets an
engine that is not usable, the next one is tried. Never touches another model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec, Limits, LinkLost, Reply, Starter
from msearchd.domain.sample import Sample, Sound, TimedText
from msearchd.domain.space import ModelKey, Space, Vectors
from msearchd.inference import parcel
from msearchd.inference.batcher import Batcher, Gathered, each_item
from msearchd.inference.residency import Resident
from msearchd.inference.spec import EngineChoice, Lane, ModelSpec, Role
from msearchd.inference.worker_process import WorkerProcess

log = structlog.get_logger(__name__)

_WORKER_MODULE = "msearchd.inference.worker.main"
#: A start that failed for good (package missing) is not tried again at every call: each costs seconds of CPU.
_REMEMBER_FAILURE_S = 15.0
_LEAST_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as people see it. Bytes, seconds, passages."""

    name: str
    state: str  # unloaded | loading | ready | busy | unusable
    engine: str = ""
    python: str = ""
    device: str = ""
    dtype: str = ""
    dim: int = 0
    pid: int | None = None
    resident_bytes: int = 0
    waiting: int = 0
    in_flight: int = 0
    passages: int = 0
    restarts: int = 0
    idle_s: float = 0.0
    is_pinned: bool = False
    reason: str = ""
    serves: str = "text"
    batch_cost: int = 0  # learned: cost units of one batch
    cost_unit: str = ""  # tokens | patches | frames
    throughput: float = 0.0  # cost units a second
    loads: int = 0
    load_s: float = 0.0  # the last load
    device_bytes: int = 0  # of an accelerator's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What all workers of a pool share. Times in seconds."""

    limits: Limits
    load_timeout_s: float
    batch_timeout_s: float
    starter_for: Callable[[EngineChoice, ModelSpec], Starter]
    engine_files: Mapping[str, Path]


class LoadedModel:
    """A model's worker and queue. Owned by the pool; closed by `close`."""

    def __init__(self, spec: ModelSpec, settings: WorkerSettings) -> None:
        self.spec = spec
        self._settings = settings
        self._choice = 0
        self._worker = self._make_worker()
        self._batcher = Batcher(
            self._send_bulk,
            batch_tokens=spec.start["batch_tokens"],
            restart=self.unload,
            forgive=self._forgive,
            on_killed=self._begin_smaller,
        )
        self._interactive = 0
        self._seen_hangs = 0
        self._first_tokens = int(spec.start["batch_tokens"])
        self._facts: Mapping[str, Any] = {}
        self._learned: dict[str, dict[str, float]] = {}
        self._loads = 0
        self._failure: tuple[float, errors.Misconfigured] | None = None
        self.last_used_s = time.monotonic()
        self.is_pinned = False

    # -- use -----------------------------------------------------------------------------------------------------------

    async def ready(self) -> Mapping[str, Any]:
        """Facts of the loaded model. Raises Misconfigured, or RetryLater where it cannot start now."""
        if self._failure is not None and time.monotonic() < self._failure[0]:
            raise self._failure[1]
        while True:
            try:
                child = await self._worker.ready()
            except errors.Misconfigured as error:
                if not await self._try_next_engine(error):
                    self._failure = (time.monotonic() + _REMEMBER_FAILURE_S, error)
                    raise
            else:
                return self._accept(child)

    async def space(self) -> Space:
        """The model's vector space; loads it only where its files do not tell."""
        card = self.spec.card
        if card is not None and card.dim is not None and self.spec.serves == "text":
            return self.spec.space(card.dim)
        facts = self._facts or await self.ready()
        return self.spec.space(facts["dim"], facts["fingerprint"], is_multi=facts.get("multi", False))

    async def embed(self, samples: Sequence[Sample], *, role: Role, lane: Lane) -> Vectors:
        """As Pool.embed, without its deadline."""
        self.last_used_s = time.monotonic()
        try:
            if lane is Lane.BULK:
                return await self._batcher.embed(samples, role=role.value)
            return await self._embed_now(samples, role=role)
        finally:
            self.last_used_s = time.monotonic()

    async def transcribe(self, sound: Sound, *, language: str, lane: Lane) -> AsyncGenerator[TimedText, None]:
        """What is said in *sound*, piece by piece. A worker that dies is started again after the last piece, once a place.

        Raises as ready; BadAsset where one place ends the worker twice.
        """
        begin_ms, deaths = 0, 0
        self._interactive += 1
        try:
            while True:
                try:
                    async with contextlib.aclosing(
                        self._pieces(sound, begin_ms, language=language, lane=lane)
                    ) as pieces:
                        async for piece in pieces:
                            begin_ms, deaths = max(begin_ms, piece.t1_ms), 0
                            yield piece
                except LinkLost as error:
                    deaths += 1
                    if deaths > 1:
                        message = f"the sound after {begin_ms / 1000:.1f} s ends its model's process ({error})"
                        raise errors.BadAsset(message) from error
                    await self._worker.forgive()
                else:
                    return
        finally:
            self._interactive -= 1
            self.last_used_s = time.monotonic()

    async def unload(self) -> None:
        """End the worker; the next call starts it again."""
        await self._worker.release()

    async def close(self) -> None:
        """End everything; callers in flight hear RetryLater."""
        await self._batcher.close()
        await self._worker.stop()

    # -- figures -------------------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """True while its worker runs or starts."""
        return self._worker.child is not None or self._worker.is_loading

    @property
    def is_busy(self) -> bool:
        """True while anybody waits for it."""
        return self._interactive > 0 or self._batcher.is_busy or self._worker.is_loading

    def as_resident(self) -> Resident:
        """For the residency planner: measured bytes where it runs, else predicted ones."""
        child = self._worker.child
        measured = child.resident_bytes() if child is not None else 0
        return Resident(
            ModelKey(self.spec.key),
            max(measured, self.spec.predicted_bytes),
            self.last_used_s,
            is_busy=self.is_busy,
            is_pinned=self.is_pinned,
        )

    def status(self) -> ModelStatus:
        """A snapshot."""
        child = self._worker.child
        failed = self._failure is not None and time.monotonic() < self._failure[0]
        state = (
            "loading"
            if self._worker.is_loading
            else "unusable"
            if failed
            else "unloaded"
            if child is None
            else "busy"
            if self.is_busy
            else "ready"
        )
        choice = self.spec.engines[self._choice]
        kind = next((kind for kind in self._facts.get("kinds", ()) if kind in self._learned), "")
        learned = self._learned.get(kind, {})
        return ModelStatus(
            name=self.spec.key,
            state=state,
            engine=choice.engine,
            python=choice.python,
            device=str(self._facts.get("device", "")),
            dtype=str(self._facts.get("dtype", "")),
            dim=int(self._facts.get("dim", 0)),
            pid=child.pid if child else None,
            resident_bytes=child.resident_bytes() if child else 0,
            waiting=self._batcher.waiting,
            in_flight=self._batcher.in_flight + self._interactive,
            passages=self._batcher.passages,
            restarts=self._worker.restarts,
            idle_s=0.0 if self.is_busy else time.monotonic() - self.last_used_s,
            is_pinned=self.is_pinned,
            reason=self._failure[1].sentence() if failed and self._failure else "",
            serves=self.spec.serves,
            batch_cost=int(learned.get("cost", 0)),
            cost_unit=parcel.COST_UNITS.get(kind, ""),
            throughput=float(learned.get("cost_per_s", 0.0)),
            loads=self._loads,
            load_s=float(self._facts.get("load_s", 0.0)),
            device_bytes=int(self._facts.get("device_bytes", 0)),
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    def _make_worker(self) -> WorkerProcess:
        choice = self.spec.engines[self._choice]
        start = {
            **self.spec.start,
            "engine": choice.engine,
            "engine_file": str(self._settings.engine_files.get(choice.engine, "")),
        }
        spec = ChildSpec(
            name=f"model:{self.spec.key}",
            module=_WORKER_MODULE,
            start=start,
            python=choice.python,
            env=self.spec.env,
            limits=self._settings.limits,
            ready_deadline_s=self._settings.load_timeout_s,
        )
        return WorkerProcess(
            spec, batch_timeout_s=self._settings.batch_timeout_s, start=self._settings.starter_for(choice, self.spec)
        )

    async def _try_next_engine(self, error: errors.Misconfigured) -> bool:
        """True where another engine can be tried: this one's package, version or interpreter is what is wrong."""
        if not error.key.startswith(("engine:", "python:")) or self._choice + 1 >= len(self.spec.engines):
            return False
        log.warning(
            "engine not usable, trying the next",
            model=self.spec.key,
            engine=self.spec.engines[self._choice].engine,
            reason=error.sentence(),
        )
        old, self._choice = self._worker, self._choice + 1
        self._worker = self._make_worker()
        await old.stop()
        return True

    def _accept(self, child: Child) -> Mapping[str, Any]:
        if child.facts is not self._facts:
            promised = self.spec.card.dim if self.spec.card is not None and self.spec.serves == "text" else None
            if promised is not None and promised != child.facts["dim"]:
                message = f"{self.spec.key!r} promises vectors of {promised} numbers and makes {child.facts['dim']}"
                raise errors.Misconfigured(message, key=f"model:{self.spec.key}", hint="fetch the model again")
            self._facts, self._failure = child.facts, None
            self._learn(child.facts.get("learned"))
            self._loads += 1
        return self._facts

    async def _send_bulk(self, args: Mapping[str, Any], body: bytes) -> AsyncGenerator[Reply, None]:
        self._refuse_other_kinds(args["kind"], await self.ready())
        async with contextlib.aclosing(self._worker.stream("embed", args, body, lane=Lane.BULK)) as frames:
            async for reply in frames:
                self._learn(reply.args.get("learned"))
                yield reply

    def _refuse_other_kinds(self, kind: str, facts: Mapping[str, Any]) -> None:
        kinds = facts.get("kinds", ("text",))
        if kind not in kinds:
            message = f"model {self.spec.key!r} takes {' and '.join(kinds)}, not {kind}"
            raise errors.Misconfigured(message, key=f"model:{self.spec.key}", hint="name another model")

    def _learn(self, learned: Mapping[str, Mapping[str, float]] | None) -> None:
        if learned:
            self._learned |= {kind: dict(values) for kind, values in learned.items()}

    async def _pieces(
        self, sound: Sound, begin_ms: int, *, language: str, lane: Lane
    ) -> AsyncGenerator[TimedText, None]:
        self._refuse_other_kinds("speech", await self.ready())
        body = memoryview(sound.pcm)[begin_ms * sound.rate // 1000 * 4 :]
        args = {"rate": sound.rate, "language": language}
        async with contextlib.aclosing(self._worker.stream("transcribe", args, body, lane=lane)) as frames:
            async for reply in frames:
                if "t0" in reply.args:
                    yield TimedText(
                        int(reply.args["t0"]) + begin_ms, int(reply.args["t1"]) + begin_ms, str(reply.args["text"])
                    )

    async def _embed_now(self, samples: Sequence[Sample], *, role: Role) -> Vectors:
        self._interactive += 1
        try:
            try:
                return await self._ask(samples, role=role)
            except LinkLost:  # most likely a bulk neighbour's crash: once more, in a fresh worker
                return await self._ask(samples, role=role)
        finally:
            self._interactive -= 1

    async def _ask(self, samples: Sequence[Sample], *, role: Role) -> Vectors:
        facts = await self.ready()
        args, body = parcel.pack(samples, role=role.value)
        self._refuse_other_kinds(args["kind"], facts)
        gathered = Gathered(len(samples))
        async with contextlib.aclosing(self._worker.stream("embed", args, body, lane=Lane.INTERACTIVE)) as frames:
            async for reply in frames:
                self._learn(reply.args.get("learned"))
                if failed := reply.args.get("failed"):
                    raise _refused(
                        failed,
                        index=reply.args["rows"][0],
                        count=len(samples),
                        reason=str(reply.args.get("reason", "")),
                    )
                for index, rows, count in each_item(reply):
                    gathered.place(index, rows, count=count)
        return gathered.vectors(int(facts["dim"]))

    async def _forgive(self) -> None:
        await self._worker.forgive()

    def _begin_smaller(self) -> None:
        if self._worker.hangs > self._seen_hangs:  # that kill was ours: time was short, not memory
            self._seen_hangs = self._worker.hangs
            return
        self._first_tokens = max(_LEAST_TOKENS, self._first_tokens // 2)
        self._worker.begin_smaller(self._first_tokens)


def _refused(failed: str, *, index: int, count: int, reason: str) -> errors.MsearchError:
    if failed == "memory":
        return errors.RetryLater(f"not enough memory to embed one text: {reason}", after_s=30.0, hint="free memory")
    return errors.BadAsset(f"passage {index} of {count} cannot be embedded: {reason}")
