"""One model of the pool: its worker, its engine choice, its batcher, its figures.

In: samples with a lane. Out: vectors, or what is said. Loads on first use; where engine "auto" meets an
engine that is not usable, the next one is tried. Never touches another model.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec, LinkLost, Reply
from msearchd.domain.sample import Sample, Sound, TimedText
from msearchd.domain.space import Space, Vectors
from msearchd.inference import parcel
from msearchd.inference.batcher import Batcher
from msearchd.inference.gathered import Gathered, each_item
from msearchd.inference.learned import Figures
from msearchd.inference.measured import Measured
from msearchd.inference.model_status import ModelStatus
from msearchd.inference.residency import HOST, Resident, Seat, Wanted
from msearchd.inference.spec import Lane, ModelSpec, Role
from msearchd.inference.worker.budget import FIRST_COST
from msearchd.inference.worker_process import WorkerProcess
from msearchd.inference.worker_settings import WorkerSettings
from msearchd.settings.model import EmbeddingModel

log = structlog.get_logger(__name__)

_WORKER_MODULE = "msearchd.inference.worker.main"
#: A start that failed for good (package missing) is not tried again at every call: each costs seconds of CPU.
_REMEMBER_FAILURE_S = 15.0
_LEAST_TOKENS = 256


class LoadedModel:
    """One copy of a model: its worker and queue. Owned by the pool; closed by `close`."""

    def __init__(self, spec: ModelSpec, model: EmbeddingModel, settings: WorkerSettings, *, copy: int = 1) -> None:
        self.spec = spec
        self.model = model
        self.seat = Seat(spec.key if copy == 1 else f"{spec.key}#{copy}")
        self.device = HOST  # an accelerator's name once admission chose one
        self.mask: str | None = None  # CUDA_VISIBLE_DEVICES of its worker; None leaves it as it is
        self.is_copy = copy > 1  # its device was chosen when it was made
        self.is_admitted = False
        self.questions = 0  # interactive calls that wait for it or are served
        self._settings = settings
        self._choice = 0
        self._worker = self._make_worker()
        self._batcher = Batcher(
            self._send_bulk,
            batch_cost=self._batch_cost,
            restart=self.unload,
            forgive=self._worker_forgives,
            on_killed=self._begin_smaller,
        )
        self._streams = 0
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._seen_hangs = 0
        self._first_tokens = int(spec.start["batch_tokens"]) or FIRST_COST["text"]
        self._facts: Mapping[str, Any] = {}
        self._measured = Measured(spec, settings.figures)
        self._starting: asyncio.Task[Mapping[str, Any]] | None = None
        self._loads = 0
        self._failure: tuple[float, errors.Misconfigured] | None = None
        self.last_used_s = time.monotonic()
        self.is_pinned = model.pinned

    # -- use -----------------------------------------------------------------------------------------------------------

    async def ready(self) -> Mapping[str, Any]:
        """Facts of the loaded model, loaded now if need be. Raises Misconfigured, or RetryLater where it cannot start now.

        Loading goes on when the caller is cancelled: the next one finds it further along.
        """
        if self._failure is not None and time.monotonic() < self._failure[0]:
            raise self._failure[1]
        if (child := self._worker.child) is not None and self._facts is child.facts:
            return self._facts
        self.start_soon()
        starting = cast("asyncio.Task[Mapping[str, Any]]", self._starting)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():  # unloaded meanwhile, not our caller's doing
                message = f"model {self.spec.key!r} was unloaded while it loaded"
                raise errors.RetryLater(message) from None
            raise

    def start_soon(self) -> None:
        """Begin to load it; whoever calls next waits for that."""
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start(), name=f"start:{self.seat}")
            # Its error reaches those who wait; where nobody does any more, the next call meets it again.
            self._starting.add_done_callback(lambda task: None if task.cancelled() else task.exception())

    async def _start(self) -> Mapping[str, Any]:
        try:
            await self._settings.room.admit(self)
            try:
                return await self._load()
            except errors.RetryLater as error:
                # What looked like enough was not: everybody who is idle goes, and it is tried once more.
                if not is_memory_trouble(error) or not await self._settings.room.clear(self):
                    raise
                log.warning("model loads again with more room", model=self.seat, reason=str(error))
                return await self._load()
        finally:
            self.is_admitted = False

    async def _load(self) -> Mapping[str, Any]:
        self._worker.begin_with(learned=self.figures().batches, **self._placed())
        while True:
            try:
                child = await self._worker.ready()
            except errors.Misconfigured as error:
                if not await self._try_next_engine(error):
                    self._failure = (time.monotonic() + _REMEMBER_FAILURE_S, error)
                    raise
                self._worker.begin_with(learned=self.figures().batches, **self._placed())
            else:
                return self._accept(child)

    def _placed(self) -> dict[str, Any]:
        return {} if self.mask is None else {"visible_devices": self.mask}

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
        while True:
            self._streams += 1
            try:
                async with contextlib.aclosing(self._pieces(sound, begin_ms, language=language, lane=lane)) as pieces:
                    async for piece in pieces:
                        begin_ms, deaths = max(begin_ms, piece.t1_ms), 0
                        yield piece
                        if lane is Lane.BULK and not self._resumed.is_set():
                            break
                    else:
                        return
            except LinkLost as error:
                deaths += 1
                if deaths > 1:
                    message = f"the sound after {begin_ms / 1000:.1f} s ends its model's process ({error})"
                    raise errors.BadAsset(message) from error
                await self._worker.forgive()
            finally:
                self._streams -= 1
                self.last_used_s = time.monotonic()
            await self._resumed.wait()

    async def unload(self) -> None:
        """End the worker; the next call starts it again."""
        self._note_figures()
        await self._end_starting()
        await self._worker.release()

    async def close(self) -> None:
        """End everything; callers in flight hear RetryLater."""
        self._note_figures()
        await self._batcher.close()
        await self._end_starting()
        await self._worker.stop()

    def pause(self) -> None:
        """Send no more bulk work: a question to another model needs the memory."""
        self._resumed.clear()
        self._batcher.pause()

    def resume(self) -> None:
        """Go on with bulk work."""
        self._resumed.set()
        self._batcher.resume()

    async def _end_starting(self) -> None:
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)

    # -- figures -------------------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """True from the moment that it may start until its worker has ended."""
        return self._worker.child is not None or self._worker.is_loading or self.is_admitted

    @property
    def is_busy(self) -> bool:
        """True while anybody waits for it; paused, while a window is still at work."""
        if self._streams or self._worker.is_loading or self.is_admitted or self._batcher.in_flight:
            return True
        return self._batcher.is_busy and not self._batcher.is_paused

    @property
    def waiting_cost(self) -> int:
        """Rough cost of the bulk work that waits."""
        return self._batcher.waiting_cost

    def figures(self) -> Figures:
        """What was measured of it, now or before."""
        return self._measured.known(self._engine(), self.device)

    def bytes_on(self) -> dict[str, int]:
        """Bytes by device that it has or will need: measured, here or by a predecessor, else predicted."""
        child = self._worker.child
        now_bytes = child.resident_bytes() if child is not None else None
        return self._measured.bytes_on(self._engine(), self.device, now_bytes=now_bytes)

    @property
    def predicted_device_bytes(self) -> int:
        """Memory on an accelerator before it is measured here."""
        return self._measured.predicted_device_bytes(self._engine(), self.device)

    def as_resident(self) -> Resident:
        """For the residency planner."""
        own = self.model.idle_unload_s
        return Resident(
            seat=self.seat,
            bytes_on=self.bytes_on(),
            last_used_s=self.last_used_s,
            reload_s=float(self._facts.get("load_s", 0.0)) or self.figures().load_s or 1.0,
            is_busy=self.is_busy,
            is_pinned=self.is_pinned,
            group=self.model.group,
            keep_s=own if own >= 0 else self._settings.idle_unload_s,
        )

    def as_wanted(self) -> Wanted:
        """For the residency planner."""
        return Wanted(seat=self.seat, bytes_on=self.bytes_on(), group=self.model.group)

    def status(self) -> ModelStatus:
        """A snapshot."""
        child = self._worker.child
        failed = self._failure is not None and time.monotonic() < self._failure[0]
        state = (
            "loading"
            if self._worker.is_loading or self.is_admitted
            else "unusable"
            if failed
            else "unloaded"
            if child is None
            else "busy"
            if self.is_busy
            else "ready"
        )
        choice = self.spec.engines[self._choice]
        learned_by_kind = self._measured.learned
        kind = next((kind for kind in self._facts.get("kinds", ()) if kind in learned_by_kind), "")
        learned = learned_by_kind.get(kind, {})
        known = self.figures()
        return ModelStatus(
            name=self.spec.key,
            state=state,
            engine=choice.engine,
            python=choice.python,
            device=self.device if self.device != HOST else str(self._facts.get("device", "")),
            dtype=str(self._facts.get("dtype", "")),
            dim=int(self._facts.get("dim", 0)),
            pid=child.pid if child else None,
            resident_bytes=child.resident_bytes() if child else 0,
            waiting=self._batcher.waiting,
            in_flight=self._batcher.in_flight + self._streams,
            passages=self._batcher.passages,
            restarts=self._worker.restarts,
            idle_s=0.0 if self.is_busy else time.monotonic() - self.last_used_s,
            is_pinned=self.is_pinned,
            reason=self._failure[1].sentence() if failed and self._failure else "",
            serves=self.spec.serves,
            batch_cost=int(learned.get("size", 0)),
            cost_unit=parcel.COST_UNITS.get(kind, ""),
            throughput=float(learned.get("cost_per_s", 0.0)),
            loads=self._loads,
            load_s=float(self._facts.get("load_s", 0.0)) or known.load_s,
            device_bytes=self._measured.device_bytes if child else 0,
            copies=int(child is not None),
            is_paused=self._batcher.is_paused,
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
        """True where another engine can be tried: this one's package, version or interpreter is what is wrong, or it
        cannot read these weights (an older library may not know a newer tokenizer).
        """
        if not error.key.startswith(("engine:", "python:", "source:")) or self._choice + 1 >= len(self.spec.engines):
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
            self._loads += 1
            if str(child.facts.get("device", "")).startswith("cpu"):
                self.device = HOST
            self._learn(child.facts)
        return self._facts

    async def _send_bulk(self, args: Mapping[str, Any], body: bytes) -> AsyncGenerator[Reply, None]:
        self._refuse_other_kinds(args["kind"], await self.ready())
        async with contextlib.aclosing(self._worker.stream("embed", args, body, lane=Lane.BULK)) as frames:
            async for reply in frames:
                self._learn(reply.args)
                yield reply

    def _refuse_other_kinds(self, kind: str, facts: Mapping[str, Any]) -> None:
        kinds = facts.get("kinds", ("text",))
        if kind not in kinds:
            message = f"model {self.spec.key!r} takes {' and '.join(kinds)}, not {kind}"
            raise errors.Misconfigured(message, key=f"model:{self.spec.key}", hint="name another model")

    def _engine(self) -> str:
        return self.spec.engines[self._choice].engine

    def _learn(self, told: Mapping[str, Any]) -> None:
        """Take what the worker tells at its start and after each request."""
        if self._measured.learn(told):
            self._note_figures()

    def _note_figures(self) -> None:
        if (child := self._worker.child) is not None and self._facts:
            load_s = float(self._facts.get("load_s", 0.0))
            self._measured.note(self._engine(), self.device, host_bytes=child.resident_bytes(), load_s=load_s)

    def _batch_cost(self, kind: str) -> int:
        """Rough cost of a full batch, for how much goes into a window."""
        limit = int(self.spec.start["batch_tokens"])
        learned = int(self._measured.learned.get(kind, {}).get("size", 0)) if kind in {"text", "pair"} else 0
        return parcel.batch_cost(kind, batch_tokens=learned or limit or FIRST_COST["text"])

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
        self._streams += 1
        try:
            try:
                return await self._ask(samples, role=role)
            except LinkLost:  # most likely a bulk neighbour's crash: once more, in a fresh worker
                return await self._ask(samples, role=role)
        finally:
            self._streams -= 1

    async def _ask(self, samples: Sequence[Sample], *, role: Role) -> Vectors:
        facts = await self.ready()
        args, body = parcel.pack(samples, role=role.value)
        self._refuse_other_kinds(args["kind"], facts)
        gathered = Gathered(len(samples))
        async with contextlib.aclosing(self._worker.stream("embed", args, body, lane=Lane.INTERACTIVE)) as frames:
            async for reply in frames:
                self._learn(reply.args)
                if failed := reply.args.get("failed"):
                    raise _refused(
                        failed,
                        index=reply.args["rows"][0],
                        count=len(samples),
                        reason=str(reply.args.get("reason", "")),
                    )
                for index, rows, count, cost in each_item(reply):
                    gathered.place(index, rows, count=count, cost=cost)
        return gathered.vectors(int(facts["dim"]))

    async def _worker_forgives(self) -> None:
        await self._worker.forgive()

    def _begin_smaller(self) -> None:
        if self._worker.hangs > self._seen_hangs:  # that kill was ours: time was short, not memory
            self._seen_hangs = self._worker.hangs
            return
        self._first_tokens = max(_LEAST_TOKENS, self._first_tokens // 2)
        self._worker.begin_smaller(self._first_tokens)


def is_memory_trouble(error: errors.MsearchError) -> bool:
    """True where a load failed for want of memory: it said so, or the kernel killed it."""
    text = str(error)
    return "not enough memory" in text or "SIGKILL" in text


def _refused(failed: str, *, index: int, count: int, reason: str) -> errors.MsearchError:
    if failed == "memory":
        return errors.RetryLater(f"not enough memory to embed one text: {reason}", after_s=30.0, hint="free memory")
    return errors.BadAsset(f"passage {index} of {count} cannot be embedded: {reason}")
