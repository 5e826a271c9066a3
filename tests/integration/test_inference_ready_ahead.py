"""Preprocessing overlaps the device: pages of the next request are made ready while the device has those of this one."""

import pytest
import timed_pages_engine
from page_models import COLPALI, INFINITY, has_pages, make

from msearchd.aio.child import Limits
from msearchd.domain.sample import Picture
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings.model import EmbeddingModel, InferenceSettings

PAGES = ModelKey("pages")
#: One page of 900 x 1300 is 3.5 MB, a window (32 MB) nine of them.
COUNT, SIZE = 27, (900, 1300)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["colpali", pytest.param("infinity", marks=pytest.mark.slow)])
async def test_the_processor_works_while_the_device_does(engine, tmp_path):
    python = COLPALI if engine == "colpali" else INFINITY
    if not has_pages(python):
        pytest.skip(f"no environment of {engine} has colpali-engine: type `make engines`")
    folder = make(python, tmp_path, "colpali") / "colpali"
    file, spans = timed_pages_engine.written(tmp_path, engine, wait_s=0.05)
    model = EmbeddingModel(name=PAGES, source=str(folder), serves="page", engine=engine, device="cpu", threads=1)
    settings = InferenceSettings(models=(model,), text_model="", page_model=PAGES)
    pool = Pool(
        settings, limits=Limits(), chunking="c", state_dir=tmp_path, engine_files={engine: file}, uses_forkserver=False
    )
    width, height = SIZE
    pages = [Picture(width, height, bytes([shade * 9]) * (width * height * 3)) for shade in range(COUNT)]
    try:
        await pool.embed(["warm"], model=PAGES, role=Role.QUERY, lane=Lane.INTERACTIVE, deadline_s=100)
        spans.write_text("")
        done = await pool.embed(pages, model=PAGES, role=Role.DOCUMENT, lane=Lane.BULK, deadline_s=100)
    finally:
        await pool.close()
    assert len(done.rows) == COUNT
    seen = timed_pages_engine.read(spans)
    processor, device = seen["processor"], seen["device"]
    assert len(processor) == COUNT
    assert {thread.rpartition("_")[0] for _, _, thread in processor} == {"prepare"}  # never the device's own
    began = device[0][0]  # until then there is nothing for the device
    later = [(start, end) for start, end, _ in processor if start > began]
    assert later, "everything was made ready before the device began"
    work_s = sum(end - start for start, end in later)
    beside_s = sum(max(0.0, min(end, to) - max(start, at)) for start, end in later for at, to, _ in device)
    assert beside_s >= 0.5 * work_s, (beside_s, work_s)
