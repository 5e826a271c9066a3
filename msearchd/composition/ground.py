"""What everything stands on: the lock of the data folder, the database with its owners, known spaces, the vector cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msearchd.aio.instance import InstanceLock
from msearchd.aio.sqlite import Database
from msearchd.composition.life import Life
from msearchd.domain.space import ModelKey
from msearchd.inference.lineage import Lineage
from msearchd.inference.model_book import ModelBook
from msearchd.jobs.queue import JobQueue
from msearchd.media.client import chunking_fingerprint
from msearchd.orchestrator.integrity import DATABASE_GONE, Integrity
from msearchd.orchestrator.records import open_records
from msearchd.orchestrator.reset import REASON as RESET_REASON
from msearchd.store.catalog import Catalog
from msearchd.store.catalog.space_book import SpaceBook
from msearchd.store.vector_cache import VectorCache


@dataclass(frozen=True, slots=True)
class Ground:
    """Open until the life's stack closes it. `replaced`: models of former settings whose spaces are still there."""

    data_dir: Path
    database: Database
    catalog: Catalog
    queue: JobQueue
    lineage: Lineage
    replaced: tuple[ModelKey, ...]
    cache: VectorCache | None
    models: ModelBook
    integrity: Integrity


async def lay(life: Life, *, damage: str) -> Ground:
    """Lock the data folder and open what lies in it; with *damage* (of the last life) set the database aside first.

    Raises Misconfigured: another daemon, a newer database, a folder that cannot be written; RetryLater: a full disk.
    """
    settings, data_dir = life.settings, life.settings.data_dir
    lock = InstanceLock.acquire(data_dir)
    life.stack.callback(lock.release)
    records = await open_records(data_dir, settings.queue, damage=damage)
    life.stack.push_async_callback(records.close, data_dir)
    for reason in (RESET_REASON, DATABASE_GONE):  # killed while it reset: what is left to do is in the queue
        await records.queue.resume(reason)
    known = [(one.space, one.made_by) for one in await SpaceBook(records.database).records()]
    chunking = chunking_fingerprint(settings.extract)
    lineage = Lineage(settings.inference, known=known, chunking=chunking, state_dir=data_dir)
    cache = await VectorCache.open(data_dir / "vector-cache.db", max_bytes=settings.store.cache_mb << 20)
    if cache is not None:
        life.stack.push_async_callback(cache.close)
    return Ground(
        data_dir=data_dir,
        database=records.database,
        catalog=records.catalog,
        queue=records.queue,
        lineage=lineage,
        replaced=tuple(lineage.keys_of(space for space, _ in known)),
        cache=cache,
        models=await ModelBook.open(records.database, former=data_dir / "models.json"),
        integrity=Integrity(
            records.database,
            was_unclean=records.was_unclean,
            begin_anew=life.begin_anew,
            reopen=life.reopen,
            hold=partial(records.queue.pause, DATABASE_GONE),
            release=partial(records.queue.resume, DATABASE_GONE),
        ),
    )
