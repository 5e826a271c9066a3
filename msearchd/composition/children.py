"""The child processes: store, models, readers. Each starts when it is first asked."""

from __future__ import annotations

from dataclasses import dataclass

from msearchd.aio.child import Limits
from msearchd.composition.ground import Ground
from msearchd.composition.life import Life
from msearchd.inference.pool import Pool
from msearchd.media.client import Extractors, chunking_fingerprint
from msearchd.store.client import StoreProcess


@dataclass(frozen=True, slots=True)
class Children:
    """Ended by the life's stack."""

    store: StoreProcess
    pool: Pool
    extractors: Extractors
    #: A scanned book must not keep a saved note waiting: pixels are read in a worker of their own.
    pixel_readers: Extractors
    #: What models see and hear: two, so that a question by example need not wait for a file of the index.
    media_readers: Extractors


def make_children(life: Life, ground: Ground) -> Children:
    """Their clients; no process runs yet."""
    settings = life.settings
    limits = Limits(nice=settings.limits.nice)
    extract = settings.extract
    children = Children(
        store=StoreProcess(settings.store, ground.data_dir, Limits(nice=0)),  # searches wait for it
        pool=Pool(
            ground.lineage.settings,
            limits=limits,
            chunking=chunking_fingerprint(extract),
            state_dir=ground.data_dir,
            book=ground.models,
        ),
        extractors=Extractors(extract, limits),
        pixel_readers=Extractors(extract.model_copy(update={"workers": 1}), limits, name="ocr"),
        media_readers=Extractors(extract.model_copy(update={"workers": 2}), limits, name="media"),
    )
    for part in (children.store, children.pool, children.extractors, children.pixel_readers, children.media_readers):
        life.stack.push_async_callback(part.close)
    return children
