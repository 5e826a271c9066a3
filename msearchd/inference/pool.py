"""The pool of models: samples in, vectors, scores or speech as text out; who is loaded, for how long, and within which memory.

In: `embed(samples, model=..., role=..., lane=..., deadline_s=...)`. Out: Vectors, order kept, normalised float32.
The daemon process loads nothing itself: each model lives in a worker process, and unloading is the end of that process.
There is no lock while a model loads; plans are made at once from values, the waiting comes after.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.child import DeadlineExpired, Limits
from msearchd.domain.sample import Pair, Sample, Sound, TimedText
from msearchd.domain.space import ModelKey, Space, Vectors, vectors_class
from msearchd.inference import parcel, residency
from msearchd.inference.admission import Admission
from msearchd.inference.devices import Look, accelerators
from msearchd.inference.forkserver import ForkServers
from msearchd.inference.known import KnownModels
from msearchd.inference.learned import Book, MemoryBook
from msearchd.inference.model_status import ModelStatus, PoolStatus, together
from msearchd.inference.residency import HOST, fit_together
from msearchd.inference.resident import LoadedModel
from msearchd.inference.spec import Lane, ModelSpec, Role, default_state_dir, model_named
from msearchd.inference.worker_settings import WorkerSettings
from msearchd.settings.model import EmbeddingModel, InferenceSettings

__all__ = ["Lane", "ModelStatus", "Pool", "PoolStatus", "Role"]

log = structlog.get_logger(__name__)

#: A model's turn lasts at least this long while others wait that do not fit beside it.
_LEAST_TURN_S: Final = 20.0
#: Bulk work that a question paused goes on this long after the last question: the next one may follow at once.
_RESUME_AFTER_S: Final = 0.5


class Pool:
    """Model workers of the daemon. Use from one event loop; `close` ends all of them.

    *chunking* names how passages are cut, and *state_dir* is the daemon's data folder (engine environments lie in it).
    *budget_bytes* limits the memory of all models; None takes the settings, else 0.8 of what is free. *engine_files* adds
    engines by file; *look* finds accelerators; *book* is where what is learned of the models and pinned outlives the pool
    (None: it does not).
    """

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        limits: Limits,
        chunking: str,
        state_dir: Path | None = None,
        budget_bytes: int | None = None,
        engine_files: Mapping[str, Path] | None = None,
        uses_forkserver: bool = True,
        look: Look = accelerators,
        book: Book | None = None,
    ) -> None:
        self._settings = settings
        self._state_dir = state_dir or default_state_dir()
        self._known = KnownModels(settings, chunking=chunking, state_dir=self._state_dir, make=self._make)
        self._models = self._known.copies
        self._admission = Admission(settings, loaded_models=self._known.all, budget_bytes=budget_bytes, look=look)
        self._servers = ForkServers(limits=limits, is_used=uses_forkserver)
        self._book: Book = book or MemoryBook()
        self._shared = WorkerSettings(
            limits=limits,
            load_timeout_s=settings.load_timeout_s,
            batch_timeout_s=settings.request_timeout_s,
            starter_for=self._servers.starter_for,
            engine_files=dict(engine_files or {}),
            idle_unload_s=settings.idle_unload_s,
            figures=self._book,
            room=self._admission,
        )
        self._resuming: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._is_closed = False

    async def space(self, model: ModelKey) -> Space:
        """The vector space of *model*; loads it only if its files do not tell. Raises Misconfigured."""
        return await (await self._own(model)).space()

    async def embed(
        self, samples: Sequence[Sample], *, model: ModelKey, role: Role, lane: Lane, deadline_s: float
    ) -> Vectors:
        """Embed *samples*, all of one kind: float32[n, dim], L2-normalised, in their order. Loads the model if need be.

        Multi-vector models give several rows a sample (`rows` says how many), sparse ones SparseVectors. Lone surrogates
        are replaced by "?".
        Interactive calls overtake bulk ones between two batches.
        Raises Misconfigured (weights, package, setting, a kind that the model does not take), BadAsset (one sample kills
        its worker or cannot be read: it names the index), RetryLater (worker restarting, memory short), DeadlineExpired.
        Cancelled, what was not sent is dropped.
        """
        loaded = await self._model(model, wants_copy=lane is Lane.BULK)
        if not samples:
            space = await loaded.space()
            none = () if space.multi or space.sparse else None
            return vectors_class(is_sparse=space.sparse)(b"", 0, space.dim, none)
        clean = [parcel.valid_unicode(sample) if isinstance(sample, str) else sample for sample in samples]
        try:
            async with asyncio.timeout(deadline_s):
                with self._asked(loaded, lane):
                    return await loaded.embed(clean, role=role, lane=lane)
        except TimeoutError as error:
            message = f"model {model!r} did not embed {len(samples)} samples within {deadline_s:g} s"
            raise DeadlineExpired(message, after_s=5.0) from error

    async def rerank(
        self, query: str, texts: Sequence[str], *, model: ModelKey, lane: Lane, deadline_s: float
    ) -> tuple[float, ...]:
        """How well each of *texts* answers *query*, 0 to 1 (sigmoid of the model's score), in the order of *texts*.

        Raises as embed.
        """
        if not texts:
            return ()
        pairs = [Pair(parcel.valid_unicode(query), parcel.valid_unicode(text)) for text in texts]
        scores = await self.embed(pairs, model=model, role=Role.QUERY, lane=lane, deadline_s=deadline_s)
        return tuple(parcel.sigmoid(score) for (score,) in struct.iter_unpack("<f", scores.data))

    async def transcribe(
        self, sound: Sound, *, model: ModelKey, language: str = "", lane: Lane, deadline_s: float
    ) -> AsyncGenerator[TimedText, None]:
        """What is said in *sound*, piece by piece as it is found; close the generator to stop early.

        *deadline_s* limits the wait for each piece. Raises as embed; BadAsset where one place kills the worker twice.
        """
        loaded = await self._model(model)
        loop = asyncio.get_running_loop()
        due = loop.time() + deadline_s
        async with contextlib.aclosing(self._pieces(loaded, sound, language=language, lane=lane)) as pieces:
            while True:
                try:
                    async with asyncio.timeout_at(due):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    message = f"model {model!r} wrote nothing down within {deadline_s:g} s"
                    raise DeadlineExpired(message, after_s=5.0) from error
                yield piece
                due = loop.time() + deadline_s

    async def _pieces(
        self, loaded: LoadedModel, sound: Sound, *, language: str, lane: Lane
    ) -> AsyncGenerator[TimedText, None]:
        with self._asked(loaded, lane):
            async with contextlib.aclosing(loaded.transcribe(sound, language=language, lane=lane)) as pieces:
                async for piece in pieces:
                    yield piece

    async def preload(self, model: ModelKey) -> None:
        """Load and warm *model* now. Raises as embed."""
        loaded = await self._own(model)
        await loaded.ready()
        loaded.last_used_s = time.monotonic()

    async def unload(self, model: ModelKey) -> None:
        """End *model*'s workers; returns when their processes are gone. A later call loads it again."""
        await asyncio.gather(*(loaded.unload() for loaded in self._models.get(model, ())))

    async def pin(self, model: ModelKey, *, is_pinned: bool = True) -> None:
        """Keep *model* loaded once it is: neither idle time nor another model's need unloads it. Or let it go.

        Remembered across restarts where its settings say otherwise. Raises RetryLater where that cannot be written down;
        then nothing is changed.
        """
        by_settings = model_named(self._settings, model).pinned
        await self._book.keep_pin(model, None if is_pinned == by_settings else is_pinned)
        self._set_pinned(model, is_pinned=is_pinned)

    async def let_go(self, model: ModelKey) -> None:
        """Forget that *model* was pinned by hand; a pin of its settings rests until the next start. Raises as pin."""
        await self._book.keep_pin(model, None)
        self._set_pinned(model, is_pinned=False)

    def forget_pins(self) -> None:
        """All that was decided by hand is forgotten: the settings say who is pinned."""
        for loaded in self._known.all():
            loaded.is_pinned = loaded.model.pinned

    def fit_together(self, models: Collection[ModelKey]) -> bool:
        """True where all of *models* can be loaded at the same time. False while one of several is not known yet: its files
        are looked at meanwhile, so that the next call knows. One that cannot be had takes no memory.
        """
        if not self._known.look_at(models) and len(models) > 1:
            return False
        known = [self._models[model][0].as_wanted() for model in models if model in self._models]
        return fit_together(known, budgets=self._admission.budgets(), max_models=self._settings.max_loaded)

    def turn_s(self) -> float:
        """How long work for one model goes on before another one's turn: loading is at most a tenth of it (seconds)."""
        loads = [loaded.as_resident().reload_s for loaded in self._known.all()]
        return max(_LEAST_TURN_S, 10 * max(loads, default=0.0))

    async def close(self) -> None:
        """End all workers; callers in flight hear RetryLater."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        if self._resuming is not None:
            self._resuming.cancel()
        await self._known.close()
        await asyncio.gather(*(loaded.close() for loaded in self._known.all()))
        await self._servers.close()
        await self._book.flush()

    def snapshot(self) -> PoolStatus:
        """Where every configured model stands."""
        statuses = []
        for model in self._settings.models:
            if copies := self._models.get(ModelKey(model.name)):
                statuses.append(together([loaded.status() for loaded in copies]))
            else:
                reason = self._known.reasons.get(ModelKey(model.name), "")
                statuses.append(
                    ModelStatus(
                        name=model.name,
                        serves=model.serves,
                        state="unusable" if reason else "unloaded",
                        reason=reason,
                        is_pinned=self._is_pinned(model),
                    )
                )
        return PoolStatus(tuple(statuses), self._admission.budgets()[HOST])

    def __repr__(self) -> str:
        status = self.snapshot()
        loaded = [model for model in status.models if model.pid]
        used = sum(model.resident_bytes for model in loaded) / 2**30
        busy = sum(model.state == "busy" for model in loaded)
        waiting = sum(model.waiting for model in loaded)
        budget = status.budget_bytes / 2**30
        return f"<Pool {len(loaded)} loaded ({busy} busy) | {waiting} waiting | {used:.1f}/{budget:.1f} GiB>"

    # -- inside --------------------------------------------------------------------------------------------------------

    def _is_pinned(self, model: EmbeddingModel) -> bool:
        by_hand = self._book.pin_of(ModelKey(model.name))
        return model.pinned if by_hand is None else by_hand

    def _set_pinned(self, model: ModelKey, *, is_pinned: bool) -> None:
        for loaded in self._models.get(model, ()):
            loaded.is_pinned = is_pinned

    async def _model(self, key: ModelKey, *, wants_copy: bool = False) -> LoadedModel:
        """The copy with the least work before it; for bulk work a new one on a free device, where that pays."""
        own = await self._own(key)
        copies = self._models[key]
        if wants_copy and own.model.copies > 1 and residency.wants_copy(self._load_of(copies)):
            self._add_copy(copies)
        usable = [copy for copy in copies if copy.is_loaded] or [own]
        return min(usable, key=lambda copy: copy.waiting_cost)

    def _load_of(self, copies: Sequence[LoadedModel]) -> residency.Load:
        own = copies[0]
        status = own.status()
        return residency.Load(
            copies=sum(copy.is_loaded for copy in copies),
            max_copies=own.model.copies if own.device != HOST else 1,
            waiting_cost=sum(copy.waiting_cost for copy in copies),
            cost_per_s=status.throughput,
            load_s=status.load_s,
            free_devices=self._admission.free_for_copy(own),
        )

    def _add_copy(self, copies: list[LoadedModel]) -> None:
        device = self._admission.free_for_copy(copies[0])[0]
        unloaded = [copy for copy in copies if copy.is_copy and not copy.is_loaded]
        if not unloaded:
            unloaded = [LoadedModel(copies[0].spec, copies[0].model, self._shared, copy=len(copies) + 1)]
            unloaded[0].copies = copies
            copies += unloaded
        copy = unloaded[0]
        self._admission.place_on(copy, device)
        copy.is_pinned = copies[0].is_pinned
        log.info("model copied", model=copy.seat, device=device)
        copy.start_soon()

    async def _own(self, key: ModelKey) -> LoadedModel:
        if self._is_closed:
            raise errors.RetryLater("the models are being stopped")
        return await self._known.own(key)

    def _make(self, spec: ModelSpec, model: EmbeddingModel) -> LoadedModel:
        loaded = LoadedModel(spec, model, self._shared)
        loaded.is_pinned = self._is_pinned(model)
        if self._sweeping is None:
            self._sweeping = asyncio.create_task(self._sweep(), name="idle-models")
        return loaded

    @contextlib.contextmanager
    def _asked(self, loaded: LoadedModel, lane: Lane) -> Iterator[None]:
        """While a person waits for *loaded*, it may pause bulk work of models in its way."""
        if lane is not Lane.INTERACTIVE:
            yield
            return
        loaded.questions += 1
        if self._resuming is not None:
            self._resuming.cancel()
        try:
            yield
        finally:
            loaded.questions -= 1
            if not self._is_closed and not any(one.questions for one in self._known.all()):
                self._resuming = asyncio.get_running_loop().call_later(_RESUME_AFTER_S, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        for one in self._known.all():
            one.resume()

    async def _sweep(self) -> None:
        kept = [one.idle_unload_s for one in self._settings.models if one.idle_unload_s > 0]
        shortest_s = min([*kept, self._settings.idle_unload_s or 120.0])
        while True:
            await asyncio.sleep(min(30.0, max(0.05, shortest_s / 4)))
            await self._admission.unload_idle()
            await self._book.flush()
