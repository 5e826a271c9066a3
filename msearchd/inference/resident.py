"""One model of the pool: its worker's work, its queue, its figures.

In: samples with a lane. Out: vectors, or what is said. Loads on first use (loading.py). Never touches another model, but
hands a batch whose worker died to another copy of the same one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from msearchd import errors
from msearchd.aio.child import LinkLost, Reply
from msearchd.domain.sample import Sample, Sound, TimedText
from msearchd.domain.space import Space, Vectors
from msearchd.inference import parcel
from msearchd.inference.batcher import Batcher
from msearchd.inference.gathered import Form, whole_answer
from msearchd.inference.hearing import Hearing
from msearchd.inference.learned import Figures
from msearchd.inference.loading import Loading
from msearchd.inference.measured import Measured
from msearchd.inference.model_status import ModelStatus
from msearchd.inference.residency import HOST, Resident, Seat, Wanted
from msearchd.inference.spec import Lane, ModelSpec, Role
from msearchd.inference.worker.budget import FIRST_COST
from msearchd.inference.worker_settings import WorkerSettings
from msearchd.settings.model import EmbeddingModel

_LEAST_TOKENS: Final = 256


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
        self.copies: Sequence[LoadedModel] = (self,)  # all of this model, itself too
        self._settings = settings
        self._measured = Measured(spec, settings.figures)
        self._loading = Loading(spec, settings, seat=self.seat, owner=self)
        self.batcher = Batcher(
            self._send_bulk,
            batch_cost=self._batch_cost,
            restart=self.unload,
            forgive=self._worker_forgives,
            on_killed=self._begin_smaller,
            elsewhere=self._other_batcher,
        )
        self._hearing = Hearing(self._send_sound, forgive=self._worker_forgives)
        self._streams = 0
        self._seen_hangs = 0
        self._first_tokens = int(spec.start["batch_tokens"]) or FIRST_COST["text"]
        self.last_used_s = time.monotonic()
        self.is_pinned = model.pinned

    # -- use -----------------------------------------------------------------------------------------------------------

    async def ready(self) -> Mapping[str, Any]:
        """Facts of the loaded model, loaded now if need be. Raises Misconfigured, or RetryLater where it cannot start now.

        Loading goes on when the caller is cancelled: the next one finds it further along.
        """
        return await self._loading.ready()

    def start_soon(self) -> None:
        """Begin to load it; whoever calls next waits for that."""
        self._loading.start_soon()

    async def space(self) -> Space:
        """The model's vector space; loads it only where its files do not tell."""
        card = self.spec.card
        if card is not None and card.dim is not None and self.spec.serves == "text":
            return self.spec.space(card.dim)
        facts = self._loading.facts or await self.ready()
        kind = {"is_multi": facts.get("multi", False), "is_sparse": facts.get("sparse", False)}
        return self.spec.space(facts["dim"], facts["fingerprint"], **kind)

    async def embed(self, samples: Sequence[Sample], *, role: Role, lane: Lane) -> Vectors:
        """As Pool.embed, without its deadline."""
        self.last_used_s = time.monotonic()
        try:
            if lane is Lane.BULK:
                return await self.batcher.embed(samples, role=role.value)
            try:
                return await self.ask(samples, role=role)
            except LinkLost:  # most likely a bulk neighbour's crash: once more, in another worker or a fresh one
                return await (self._other() or self).ask(samples, role=role)
        finally:
            self.last_used_s = time.monotonic()

    async def ask(self, samples: Sequence[Sample], *, role: Role) -> Vectors:
        """Embed *samples* between two batches of whatever else is at work. Raises LinkLost where the worker dies."""
        self._streams += 1
        try:
            return await self._asked(samples, role=role)
        finally:
            self._streams -= 1

    async def transcribe(self, sound: Sound, *, language: str, lane: Lane) -> AsyncGenerator[TimedText, None]:
        """What is said in *sound*, piece by piece. A worker that dies is started again after the last piece, once a place.

        Raises as ready; BadAsset where one place ends the worker twice.
        """
        try:
            async with contextlib.aclosing(self._hearing.transcribe(sound, language=language, lane=lane)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self.last_used_s = time.monotonic()

    async def unload(self) -> None:
        """End the worker; the next call starts it again."""
        self._note_figures()
        await self._loading.end_starting()
        await self._loading.worker.release()

    async def close(self) -> None:
        """End everything; callers in flight hear RetryLater."""
        self._note_figures()
        await self.batcher.close()
        await self._loading.end_starting()
        await self._loading.worker.stop()

    def pause(self) -> None:
        """Send no more bulk work: a question to another model needs the memory."""
        self._hearing.pause()
        self.batcher.pause()

    def resume(self) -> None:
        """Go on with bulk work."""
        self._hearing.resume()
        self.batcher.resume()

    # -- figures -------------------------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """True from the moment that it may start until its worker has ended."""
        worker = self._loading.worker
        return worker.child is not None or worker.is_loading or self.is_admitted

    @property
    def is_busy(self) -> bool:
        """True while anybody waits for it; paused, while a window is still at work."""
        if self._at_work or self._loading.worker.is_loading or self.is_admitted or self.batcher.in_flight:
            return True
        return self.batcher.is_busy and not self.batcher.is_paused

    @property
    def takes_work(self) -> bool:
        """True where its worker lives and may be given bulk work now."""
        return self._loading.worker.child is not None and not self.batcher.is_paused

    @property
    def waiting_cost(self) -> int:
        """Rough cost of the bulk work that waits."""
        return self.batcher.waiting_cost

    def figures(self) -> Figures:
        """What was measured of it, now or before."""
        return self._measured.known(self._loading.engine, self.device)

    def bytes_on(self) -> dict[str, int]:
        """Bytes by device that it has or will need: measured, here or by a predecessor, else predicted."""
        child = self._loading.worker.child
        now_bytes = child.resident_bytes() if child is not None else None
        return self._measured.bytes_on(self._loading.engine, self.device, now_bytes=now_bytes)

    @property
    def predicted_device_bytes(self) -> int:
        """Memory on an accelerator before it is measured here."""
        return self._measured.predicted_device_bytes(self._loading.engine, self.device)

    def as_resident(self) -> Resident:
        """For the residency planner."""
        own = self.model.idle_unload_s
        return Resident(
            seat=self.seat,
            bytes_on=self.bytes_on(),
            last_used_s=self.last_used_s,
            reload_s=float(self._loading.facts.get("load_s", 0.0)) or self.figures().load_s or 1.0,
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
        worker, facts, failure = self._loading.worker, self._loading.facts, self._loading.failure
        child = worker.child
        learned_by_kind = self._measured.learned
        kind = next((kind for kind in facts.get("kinds", ()) if kind in learned_by_kind), "")
        learned = learned_by_kind.get(kind, {})
        return ModelStatus(
            name=self.spec.key,
            state=self._state(),
            engine=self._loading.engine,
            python=self._loading.python,
            device=self.device if self.device != HOST else str(facts.get("device", "")),
            dtype=str(facts.get("dtype", "")),
            dim=int(facts.get("dim", 0)),
            pid=child.pid if child else None,
            resident_bytes=child.resident_bytes() if child else 0,
            waiting=self.batcher.waiting,
            in_flight=self.batcher.in_flight + self._at_work,
            passages=self.batcher.passages,
            restarts=worker.restarts,
            idle_s=0.0 if self.is_busy else time.monotonic() - self.last_used_s,
            is_pinned=self.is_pinned,
            reason=failure.sentence() if failure is not None else "",
            serves=self.spec.serves,
            batch_cost=int(learned.get("size", 0)),
            cost_unit=parcel.COST_UNITS.get(kind, ""),
            throughput=float(learned.get("cost_per_s", 0.0)),
            loads=self._loading.loads,
            load_s=float(facts.get("load_s", 0.0)) or self.figures().load_s,
            device_bytes=self._measured.device_bytes if child else 0,
            copies=int(child is not None),
            is_paused=self.batcher.is_paused,
        )

    def _state(self) -> str:
        if self._loading.worker.is_loading or self.is_admitted:
            return "loading"
        if self._loading.failure is not None:
            return "unusable"
        if self._loading.worker.child is None:
            return "unloaded"
        return "busy" if self.is_busy else "ready"

    @property
    def _at_work(self) -> int:
        return self._streams + self._hearing.streams

    # -- for its loading -----------------------------------------------------------------------------------------------

    async def make_room(self) -> None:
        """As loading.Owner."""
        await self._settings.room.admit(self)

    async def make_more_room(self) -> bool:
        """As loading.Owner."""
        return await self._settings.room.clear(self)

    def start_arguments(self) -> Mapping[str, Any]:
        """As loading.Owner."""
        placed = {} if self.mask is None else {"visible_devices": self.mask}
        return {"learned": self.figures().batches, **placed}

    def note_loaded(self, facts: Mapping[str, Any]) -> None:
        """As loading.Owner."""
        if str(facts.get("device", "")).startswith("cpu"):
            self.device = HOST
        self._learn(facts)

    def note_start_ended(self) -> None:
        """As loading.Owner."""
        self.is_admitted = False

    # -- inside --------------------------------------------------------------------------------------------------------

    def _other(self) -> LoadedModel | None:
        """A copy of the model whose worker lives and takes work now, the one with the least of it."""
        usable = [one for one in self.copies if one is not self and one.takes_work]
        return min(usable, key=lambda one: one.waiting_cost, default=None)

    def _other_batcher(self) -> Batcher | None:
        other = self._other()
        return None if other is None else other.batcher

    async def _send_bulk(self, args: Mapping[str, Any], body: bytes) -> AsyncGenerator[Reply, None]:
        self._refuse_other_kinds(args["kind"], await self.ready())
        async with contextlib.aclosing(self._loading.worker.stream("embed", args, body, lane=Lane.BULK)) as frames:
            async for reply in frames:
                self._learn(reply.args)
                yield reply

    async def _send_sound(
        self, op: str, args: Mapping[str, Any], body: memoryview, lane: Lane
    ) -> AsyncGenerator[Reply, None]:
        self._refuse_other_kinds("speech", await self.ready())
        async with contextlib.aclosing(self._loading.worker.stream(op, args, body, lane=lane)) as frames:
            async for reply in frames:
                yield reply

    def _refuse_other_kinds(self, kind: str, facts: Mapping[str, Any]) -> None:
        kinds = facts.get("kinds", ("text",))
        if kind not in kinds:
            message = f"model {self.spec.key!r} takes {' and '.join(kinds)}, not {kind}"
            raise errors.Misconfigured(message, key=f"model:{self.spec.key}", hint="name another model")

    def _learn(self, told: Mapping[str, Any]) -> None:
        """Take what the worker tells at its start and after each request."""
        if self._measured.learn(told):
            self._note_figures()

    def _note_figures(self) -> None:
        child, facts = self._loading.worker.child, self._loading.facts
        if child is not None and facts:
            load_s = float(facts.get("load_s", 0.0))
            self._measured.note(self._loading.engine, self.device, host_bytes=child.resident_bytes(), load_s=load_s)

    def _batch_cost(self, kind: str) -> int:
        """Rough cost of a full batch, for how much goes into a window."""
        limit = int(self.spec.start["batch_tokens"])
        learned = int(self._measured.learned.get(kind, {}).get("size", 0)) if kind in {"text", "pair"} else 0
        return parcel.batch_cost(kind, batch_tokens=learned or limit or FIRST_COST["text"])

    async def _asked(self, samples: Sequence[Sample], *, role: Role) -> Vectors:
        facts = await self.ready()
        args, body = parcel.pack(samples, role=role.value)
        self._refuse_other_kinds(args["kind"], facts)
        async with contextlib.aclosing(
            self._loading.worker.stream("embed", args, body, lane=Lane.INTERACTIVE)
        ) as frames:
            return await whole_answer(frames, count=len(samples), form=Form.told(facts), told=self._learn)

    async def _worker_forgives(self) -> None:
        await self._loading.worker.forgive()

    def _begin_smaller(self) -> None:
        worker = self._loading.worker
        if worker.hangs > self._seen_hangs:  # that kill was ours: time was short, not memory
            self._seen_hangs = worker.hangs
            return
        self._first_tokens = max(_LEAST_TOKENS, self._first_tokens // 2)
        worker.begin_smaller(self._first_tokens)
