"""The models on the desk: snapshots of the pool as people read them, and load, unload, pin by hand.

In: names. Out: rows of control.models. Implements control.models.ModelDesk.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, cast, get_args

from msearchd import errors
from msearchd.control.models import ModelPageRow, ModelsPage, State
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import ModelStatus, Pool
from msearchd.settings.model import EmbeddingModel, InferenceSettings

_STATES: Final = frozenset(get_args(State))
#: How long `unload` waits for the end of what is at work, and after which time to ask again.
_PATIENCE_S: Final = 1.0
_LOOK_S: Final = 0.02
_BUSY_S: Final = 5.0


class PoolDesk:
    """The desk of *pool*."""

    def __init__(self, pool: Pool, settings: InferenceSettings) -> None:
        self._pool = pool
        self._settings = settings

    def page(self) -> ModelsPage:
        """Where every model stands."""
        status = self._pool.snapshot()
        rows = [self._row(model) for model in status.models]
        used = sum(row.resident_bytes for row in rows)
        return ModelsPage(models=rows, budget_bytes=max(0, status.budget_bytes), resident_bytes=used)

    async def load(self, model: str) -> ModelPageRow:
        """Load and warm it now."""
        await self._pool.preload(self._key(model))
        return self._row_of(model)

    async def unload(self, model: str) -> ModelPageRow:
        """End its worker. Not while it works: what is at work would count as an accident of the samples in it."""
        key = self._key(model)
        await self._rested(model)
        await self._pool.let_go(key)
        await self._rested(model)  # work may have come while that was written down
        await self._pool.unload(key)
        return self._row_of(model)

    async def pin(self, model: str, *, is_pinned: bool) -> ModelPageRow:
        """Load it and keep it, or let it go when it is idle again."""
        key = self._key(model)
        if is_pinned:
            await self._pool.preload(key)
        await self._pool.pin(key, is_pinned=is_pinned)
        return self._row_of(model)

    async def _rested(self, model: str) -> None:
        give_up_at = time.monotonic() + _PATIENCE_S
        while self._status_of(model).state in {"busy", "loading"}:
            if time.monotonic() > give_up_at:
                message = f"the model {model!r} is at work"
                hint = "ask again when it rests; to let it rest: msearch pause"
                raise errors.RetryLater(message, after_s=_BUSY_S, hint=hint)
            await asyncio.sleep(_LOOK_S)

    def _key(self, name: str) -> ModelKey:
        return ModelKey(self._model(name).name)

    def _model(self, name: str) -> EmbeddingModel:
        for model in self._settings.models:
            if model.name == name:
                return model
        names = ", ".join(model.name for model in self._settings.models) or "none"
        message = f"there is no model {name!r} (there is: {names})"
        raise errors.NotFound(message, hint="ask with: msearch models")

    def _status_of(self, name: str) -> ModelStatus:
        return next(status for status in self._pool.snapshot().models if status.name == name)

    def _row_of(self, name: str) -> ModelPageRow:
        return self._row(self._status_of(name))

    def _row(self, status: ModelStatus) -> ModelPageRow:
        model = self._model(status.name)
        was_used = status.loads > 0 or status.pid is not None
        return ModelPageRow(
            name=status.name,
            serves=model.serves,
            state=cast("State", status.state if status.state in _STATES else "unusable"),
            reason=status.reason,
            source=model.source,
            engine=status.engine,
            python=status.python,
            device=status.device,
            dtype=status.dtype,
            dim=status.dim,
            batch_cost=status.batch_cost,
            cost_unit=status.cost_unit,
            throughput_per_s=round(status.throughput, 1),
            resident_bytes=status.resident_bytes,
            device_bytes=status.device_bytes,
            waiting=status.waiting,
            in_flight=status.in_flight,
            samples=status.passages,
            loads=status.loads,
            load_s=round(status.load_s, 3),
            restarts=status.restarts,
            last_used_ms=int((time.time() - status.idle_s) * 1000) if was_used else None,
            is_pinned=status.is_pinned,
        )
