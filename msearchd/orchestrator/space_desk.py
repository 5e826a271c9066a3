"""Vector spaces on the desk: rows for people, the cost of a change before it is begun, and what is done by hand.

In: names. Out: rows of control.spaces. Implements control.spaces.SpaceDesk.
"""

from __future__ import annotations

import time
from typing import Final

from msearchd.aio.sqlite import Database
from msearchd.control.spaces import ModelPlan, SpaceRow, SpacesPage
from msearchd.domain.media import OF_TEXT
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.orchestrator.model_change import ModelChange
from msearchd.orchestrator.model_lines import Line, find
from msearchd.store.catalog.space_book import Phase, SpaceBook, SpaceRecord
from msearchd.store.vector_store import SpaceHealth, VectorStore

#: Passages that are embedded to measure: a second or two of one core.
_MEASURED: Final = 64
_MEASURE_DEADLINE_S: Final = 300.0
#: A point beside its vector, where the store has none yet to measure: payload, indexes, ids.
_POINT_BYTES: Final = 700
#: A sparse vector of a passage: 180 entries of 8 bytes, twice (measured: 3.7 KB a point with its payload).
_SPARSE_BYTES: Final = 2900


class SpaceKeeper:
    """The desk over *change*."""

    def __init__(
        self, change: ModelChange, *, database: Database, store: VectorStore, pool: Pool, keep_replaced_h: float
    ) -> None:
        self._change = change
        self._book = SpaceBook(database)
        self._store = store
        self._pool = pool
        self._keep_replaced_h = keep_replaced_h

    async def page(self) -> SpacesPage:
        """Where every space stands."""
        lines = await self._change.look()
        health = (await self._store.health()).spaces
        rows = [await self._row(record, health.get(record.name)) for line in lines for record in line.records]
        return SpacesPage(spaces=rows, sentences=list(self._change.problems()))

    async def plan(self, space: str) -> ModelPlan:
        """What it costs to fill it."""
        line, record = find(await self._change.look(), space)
        lacking = await self._book.lacking(record)
        per_s = await self._measured(record) if lacking.samples else None
        serving = line.serving
        return ModelPlan(
            space=record.name,
            modality=record.modality,
            phase=record.phase.value,
            serving="" if serving is None else serving.name,
            contents=lacking.contents,
            samples=lacking.samples,
            per_s=None if per_s is None else round(per_s, 2),
            seconds=None if per_s is None else round(lacking.samples / per_s, 1),
            size_bytes=lacking.samples * await self._bytes_a_point(line, record),
            keep_replaced_h=self._keep_replaced_h,
        )

    async def switch(self, space: str) -> SpaceRow:
        """Fill it, and let it answer once it holds as much."""
        return await self._row(await self._change.switch(space))

    async def rollback(self, modality: str) -> SpaceRow:
        """Let the space of before answer again."""
        return await self._row(await self._change.rollback(modality))

    async def drop(self, space: str) -> SpaceRow:
        """Delete its vectors; the row is what was."""
        return await self._row(await self._change.drop(space))

    async def _row(self, record: SpaceRecord, health: SpaceHealth | None = None) -> SpaceRow:
        lacking = (await self._book.lacking(record)).contents
        return SpaceRow(
            name=record.name,
            model=record.space.model,
            fingerprint=record.space.fingerprint,
            modality=record.modality,
            phase=record.phase.value,
            dim=record.space.dim,
            contents=record.contents,
            lacking=lacking,
            coverage=round(record.contents / max(1, record.contents + lacking), 4) if lacking else 1.0,
            points=record.points,
            size_bytes=0 if health is None else health.disk_bytes,
            is_askable=record.target is not None,
            since_ms=record.since_ms,
            drop_ms=record.since_ms + int(self._keep_replaced_h * 3_600_000) if record.phase is Phase.KEPT else None,
        )

    async def _measured(self, record: SpaceRecord) -> float | None:
        """Samples a second of its model on some passages of the index; None for what is not text, or nothing to try."""
        texts = await self._book.some_texts(_MEASURED) if record.modality in OF_TEXT else []
        if not texts or record.target is None:
            return None
        await self._pool.preload(record.target)  # a load is no part of the speed
        began = time.perf_counter()
        await self._pool.embed(
            texts, model=record.target, role=Role.DOCUMENT, lane=Lane.BULK, deadline_s=_MEASURE_DEADLINE_S
        )
        return len(texts) / max(1e-6, time.perf_counter() - began)

    async def _bytes_a_point(self, line: Line, record: SpaceRecord) -> int:
        """As in the space that serves, its vectors exchanged for those of the new dimension."""
        vector = _vector_bytes(record)
        own = vector + _POINT_BYTES
        if (serving := line.serving) is None:
            return own
        health = (await self._store.health()).spaces.get(serving.name)
        if health is None or health.points < 1000 or not health.disk_bytes:
            return own
        return max(vector, health.disk_bytes // health.points + vector - _vector_bytes(serving))


def _vector_bytes(record: SpaceRecord) -> int:
    """About, of one vector; a sparse one has 100 to 200 entries of its vocabulary, in the lists and in the original."""
    return _SPARSE_BYTES if record.space.sparse else record.space.dim * 4
