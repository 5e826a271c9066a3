"""The pool of models: samples in, vectors, scores or speech as text out; who is loaded, for how long, and within which memory.

In: `embed(samples, model=..., role=..., lane=..., deadline_s=...)`. Out: Vectors, order kept, normalised float32.
The daemon process loads nothing itself: each model lives in a worker process, and unloading is the end of that process.
There is no lock while a model loads; plans are made at once from values, the waiting comes after.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import struct
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from msearchd import errors
from msearchd.aio.child import DeadlineExpired, Limits
from msearchd.domain.sample import Pair, Sample, Sound, TimedText
from msearchd.domain.space import ModelKey, Space, Vectors
from msearchd.inference.forkserver import ForkServers
from msearchd.inference.residency import idle_too_long, plan_residency
from msearchd.inference.resident import LoadedModel, ModelStatus, WorkerSettings
from msearchd.inference.spec import Lane, Role, model_named, resolve
from msearchd.settings.model import InferenceSettings

__all__ = ["Lane", "ModelStatus", "Pool", "PoolStatus", "Role"]

log = structlog.get_logger(__name__)

#: Part of the memory that is free without us which models may use; the rest is for activations and everybody else.
_MEMORY_SHARE = 0.8
#: How long a model waits for busy ones to make room before its caller is told to come back.
_ROOM_WAIT_S = 1.0
_ROOM_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """All configured models, loaded or not. `budget_bytes` is what models may use together now."""

    models: tuple[ModelStatus, ...]
    budget_bytes: int


class Pool:
    """Model workers of the daemon. Use from one event loop; `close` ends all of them.

    *chunking* names how passages are cut, and *state_dir* is the daemon's data folder (engine environments lie in it).
    *budget_bytes* limits the memory of all models; None takes 0.8 of what is free. *engine_files* adds engines by file.
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
    ) -> None:
        self._settings = settings
        self._chunking = chunking
        self._state_dir = (
            state_dir or Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "msearchd"
        )
        self._budget_bytes = budget_bytes
        self._servers = ForkServers(limits=limits, is_used=uses_forkserver)
        self._shared = WorkerSettings(
            limits=limits,
            load_timeout_s=settings.load_timeout_s,
            batch_timeout_s=settings.request_timeout_s,
            starter_for=self._servers.starter_for,
            engine_files=dict(engine_files or {}),
        )
        self._models: dict[ModelKey, LoadedModel] = {}
        self._reasons: dict[ModelKey, str] = {}  # why a model could not even be resolved
        self._sweeping: asyncio.Task[None] | None = None
        self._is_closed = False

    async def space(self, model: ModelKey) -> Space:
        """The vector space of *model*; loads it only if its files do not tell. Raises Misconfigured."""
        return await (await self._model(model)).space()

    async def embed(
        self, samples: Sequence[Sample], *, model: ModelKey, role: Role, lane: Lane, deadline_s: float
    ) -> Vectors:
        """Embed *samples*, all of one kind: float32[n, dim], L2-normalised, in their order. Loads the model if need be.

        Multi-vector models give several rows a sample (`rows` says how many). Lone surrogates are replaced by "?".
        Interactive calls overtake bulk ones between two batches.
        Raises Misconfigured (weights, package, setting, a kind that the model does not take), BadAsset (one sample kills
        its worker or cannot be read: it names the index), RetryLater (worker restarting, memory short), DeadlineExpired.
        Cancelled, what was not sent is dropped.
        """
        loaded = await self._model(model)
        if not samples:
            return Vectors(b"", 0, (await loaded.space()).dim)
        clean = [_valid_unicode(sample) if isinstance(sample, str) else sample for sample in samples]
        try:
            async with asyncio.timeout(deadline_s):
                await self._make_room(loaded)
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
        pairs = [Pair(_valid_unicode(query), _valid_unicode(text)) for text in texts]
        scores = await self.embed(pairs, model=model, role=Role.QUERY, lane=lane, deadline_s=deadline_s)
        return tuple(_sigmoid(score) for (score,) in struct.iter_unpack("<f", scores.data))

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
        await self._make_room(loaded)
        async with contextlib.aclosing(loaded.transcribe(sound, language=language, lane=lane)) as pieces:
            async for piece in pieces:
                yield piece

    async def preload(self, model: ModelKey) -> None:
        """Load and warm *model* now. Raises as embed."""
        loaded = await self._model(model)
        await self._make_room(loaded)
        await loaded.ready()
        loaded.last_used_s = time.monotonic()

    async def unload(self, model: ModelKey) -> None:
        """End *model*'s worker; returns when its process is gone. A later call loads it again."""
        if (loaded := self._models.get(model)) is not None:
            await loaded.unload()

    def pin(self, model: ModelKey, *, is_pinned: bool = True) -> None:
        """Keep *model* loaded once it is: neither idle time nor another model's need unloads it."""
        if (loaded := self._models.get(model)) is not None:
            loaded.is_pinned = is_pinned

    async def close(self) -> None:
        """End all workers; callers in flight hear RetryLater."""
        self._is_closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await asyncio.gather(*(loaded.close() for loaded in self._models.values()))
        await self._servers.close()

    def snapshot(self) -> PoolStatus:
        """Where every configured model stands."""
        statuses = []
        for model in self._settings.models:
            loaded = self._models.get(ModelKey(model.name))
            if loaded is not None:
                statuses.append(loaded.status())
            else:
                reason = self._reasons.get(ModelKey(model.name), "")
                statuses.append(ModelStatus(name=model.name, state="unusable" if reason else "unloaded", reason=reason))
        return PoolStatus(tuple(statuses), self._budget())

    def __repr__(self) -> str:
        status = self.snapshot()
        loaded = [model for model in status.models if model.pid]
        used = sum(model.resident_bytes for model in loaded) / 2**30
        busy = sum(model.state == "busy" for model in loaded)
        waiting = sum(model.waiting for model in loaded)
        budget = status.budget_bytes / 2**30
        return f"<Pool {len(loaded)} loaded ({busy} busy) | {waiting} waiting | {used:.1f}/{budget:.1f} GiB>"

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _model(self, key: ModelKey) -> LoadedModel:
        if self._is_closed:
            raise errors.RetryLater("the models are being stopped")
        if (loaded := self._models.get(key)) is not None:
            return loaded
        model = model_named(self._settings, key)
        try:
            spec = await asyncio.to_thread(
                resolve,
                model,
                allow_download=self._settings.allow_download,
                chunking=self._chunking,
                state_dir=self._state_dir,
            )
        except errors.Misconfigured as error:
            self._reasons[key] = error.sentence()
            raise
        # Another caller may have come first while we looked at the disk.
        loaded = self._models.setdefault(key, LoadedModel(spec, self._shared))
        self._reasons.pop(key, None)
        if self._sweeping is None and self._settings.idle_unload_s > 0:
            self._sweeping = asyncio.create_task(self._unload_idle(), name="idle-models")
        return loaded

    async def _make_room(self, wanted: LoadedModel) -> None:
        """Unload idle models until *wanted* fits. Raises DoesNotFit, or RetryLater where only busy ones are left."""
        give_up_at = time.monotonic() + _ROOM_WAIT_S
        while not wanted.is_loaded:
            residents = [loaded.as_resident() for loaded in self._models.values() if loaded.is_loaded]
            need = wanted.as_resident().size_bytes
            plan = plan_residency(residents, wanted.spec.key, need_bytes=need, budget_bytes=self._budget())
            for key in plan.unload:
                log.info("model unloaded", model=key, reason=f"{wanted.spec.key} needs its memory")
                await self._models[key].unload()
            if plan.is_enough:
                return
            if time.monotonic() > give_up_at:
                message = f"model {wanted.spec.key!r} waits for the memory of models at work"
                raise errors.RetryLater(message, after_s=_ROOM_WAIT_S)
            await asyncio.sleep(_ROOM_LOOK_S)

    def _budget(self) -> int:
        if self._budget_bytes is not None:
            return self._budget_bytes
        ours = sum(loaded.status().resident_bytes for loaded in self._models.values())
        return int(_MEMORY_SHARE * (free_bytes() + ours))

    async def _unload_idle(self) -> None:
        keep_s = self._settings.idle_unload_s
        while True:
            await asyncio.sleep(min(30.0, max(0.05, keep_s / 4)))
            residents = [loaded.as_resident() for loaded in self._models.values() if loaded.is_loaded]
            for key in idle_too_long(residents, now_s=time.monotonic(), keep_s=keep_s):
                log.info("model unloaded", model=key, reason=f"unused for {keep_s:g} s")
                await self._models[key].unload()


def free_bytes() -> int:
    """Memory that new processes can have without swapping (MemAvailable); all of it where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _sigmoid(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-score)) if score >= 0 else math.exp(score) / (1.0 + math.exp(score))


def _valid_unicode(text: str) -> str:
    """*text* with lone surrogates replaced: file names have them, tokenizers and the wire do not."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
