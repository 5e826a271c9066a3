"""Files that want to do harm, and readers that fail: each costs itself alone, and the next file is read at once."""

import asyncio
import os
import random
import signal
import time
import zipfile

import media_corpus
import pytest

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.job import Step
from msearchd.domain.media import Extraction, SegmentKind
from msearchd.media.client import Extractors
from msearchd.media.registry import steps_for
from msearchd.settings.model import ExtractSettings

LONG = bool(os.environ.get("MSEARCHD_LONG"))
GOOD = "the good neighbour is read all the same"


async def read(pool, path, *, with_ocr=False):
    """Extraction of *path*, or the BadAsset that it ended in. Anything else is a failure."""
    try:
        found, extraction = await pool.identify_extract(path)
        if extraction is None:
            if Step.EXTRACT not in steps_for(found, ExtractSettings()):
                return Extraction(())
            extraction = await pool.extract(path, found)
        if with_ocr and extraction.wants_ocr:
            return await pool.ocr(path, found, extraction.ocr_pages)
    except errors.BadAsset as error:
        return error
    assert isinstance(extraction, Extraction)
    return extraction


async def check_neighbour(pool, tmp_path):
    path = tmp_path / "neighbour.txt"
    path.write_text(GOOD)
    assert (await read(pool, os.fsencode(path))).segments[0].text == GOOD


async def running(pool):
    """The one worker's Child, started."""
    if pool._pool._seats[0].child is None:
        with pytest.raises(errors.NotFound):
            await pool.identify(b"/nonexistent/x")
    return pool._pool._seats[0].child


@pytest.fixture
async def pool():
    extractors = Extractors(ExtractSettings(), Limits())
    yield extractors
    await extractors.close()


@pytest.fixture
async def hasty():
    extractors = Extractors(ExtractSettings(timeout_s=0.5), Limits())
    yield extractors
    await extractors.close()


def damaged(data, rng):
    """Truncated and bit-flipped versions of *data*."""
    yield data[: len(data) // 2]
    yield data[: rng.randrange(1, len(data))]
    yield data[rng.randrange(1, len(data)) :]
    for flips in (1, 8, 200):
        broken = bytearray(data)
        for _ in range(flips):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        yield bytes(broken)
    start = rng.randrange(len(data))
    yield data[:start] + rng.randbytes(64) + data[start + 64 :]


@pytest.mark.parametrize("item", [item for item in media_corpus.corpus() if item.data], ids=lambda item: item.name)
async def test_damaged_files_end_in_an_extraction_or_a_sentence(pool, tmp_path, item):
    seed = int(os.environ.get("MSEARCHD_SEED", "7"))
    rng = random.Random(f"{item.name} {seed}")
    path = tmp_path / item.name
    for round_number in range(20 if LONG else 1):
        for data in damaged(item.data, rng):
            path.write_bytes(data)
            begun = time.monotonic()
            outcome = await read(pool, os.fsencode(path), with_ocr=LONG and round_number < 2)
            assert time.monotonic() - begun < 60, (item.name, seed, round_number)
            if isinstance(outcome, errors.BadAsset):
                assert "Bug" not in str(outcome)
                assert len(str(outcome)) > 10
    await check_neighbour(pool, tmp_path)


async def test_a_damaged_picture_costs_its_ocr_alone(pool, tmp_path):
    data = media_corpus.photo("WELCOME TO TROMSO")
    path = tmp_path / "half.jpg"
    path.write_bytes(data[: len(data) * 3 // 4])
    outcome = await read(pool, os.fsencode(path), with_ocr=True)
    assert isinstance(outcome, Extraction)
    assert "its end is missing" in outcome.note
    (tmp_path / "head.png").write_bytes(media_corpus.png("X")[:40])
    outcome = await read(pool, os.fsencode(tmp_path / "head.png"), with_ocr=True)
    assert isinstance(outcome, errors.BadAsset | Extraction)
    await check_neighbour(pool, tmp_path)


async def test_a_picture_bomb_is_never_decoded(pool, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(media_corpus.png_bomb())
    begun = time.monotonic()
    outcome = await read(pool, os.fsencode(path), with_ocr=True)
    assert time.monotonic() - begun < 15
    assert "24000 x 24000" in outcome.note
    found = await pool.identify(os.fsencode(path))
    with pytest.raises(errors.BadAsset, match="limit"):
        await pool.ocr(os.fsencode(path), found)
    assert pool.snapshot().resident_bytes < 300 * 1024**2
    await check_neighbour(pool, tmp_path)


async def test_a_zip_bomb_is_refused_by_its_directory(pool, tmp_path):
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        with archive.open("word/document.xml", "w", force_zip64=True) as part:
            for _ in range(1100):
                part.write(bytes(1024**2))
    outcome = await read(pool, os.fsencode(path))
    assert isinstance(outcome, errors.BadAsset)
    assert "zip bomb" in str(outcome)
    await check_neighbour(pool, tmp_path)


async def test_a_zip_bomb_that_lies_about_its_size_costs_itself_alone(tmp_path):
    data = bytearray(media_corpus.docx_bomb(inflated_bytes=600 * 1024**2))
    with zipfile.ZipFile(__import__("io").BytesIO(bytes(data))) as archive:
        true_size = archive.getinfo("word/document.xml").file_size
    place = 0
    while (place := data.find(true_size.to_bytes(4, "little"), place)) >= 0:
        data[place : place + 4] = (1000).to_bytes(4, "little")
        place += 4
    path = tmp_path / "liar.docx"
    path.write_bytes(data)
    pool = Extractors(ExtractSettings(memory_mb=1024, timeout_s=20), Limits())
    try:
        outcome = await read(pool, os.fsencode(path))
        assert isinstance(outcome, errors.BadAsset | Extraction)
        await check_neighbour(pool, tmp_path)
    finally:
        await pool.close()


async def test_an_entity_bomb_stays_a_small_text(pool, tmp_path):
    path = tmp_path / "laughs.svg"
    path.write_bytes(media_corpus.xml_bomb())
    outcome = await read(pool, os.fsencode(path))
    assert isinstance(outcome, Extraction)
    assert sum(len(segment.text) for segment in outcome.segments) < 10_000


async def test_a_deeply_nested_notebook_is_a_bad_file_and_no_crash(pool, tmp_path):
    path = tmp_path / "deep.ipynb"
    path.write_text('{"cells": ' + "[" * 200_000 + "]" * 200_000 + "}")
    assert isinstance(await read(pool, os.fsencode(path)), errors.BadAsset)
    assert pool.snapshot().deaths == 0


async def test_a_picture_that_needs_more_memory_than_the_limit_is_told_so(tmp_path):
    from PIL import Image

    path = tmp_path / "wide.png"
    Image.new("RGB", (17_000, 17_000), "white").save(path, compress_level=1)  # 867 MB decoded
    pool = Extractors(ExtractSettings(memory_mb=1024), Limits())
    try:
        outcome = await read(pool, os.fsencode(path), with_ocr=True)
        assert isinstance(outcome, errors.BadAsset)
        assert "memory" in str(outcome) or "killed its reader" in str(outcome)
        await check_neighbour(pool, tmp_path)
    finally:
        await pool.close()


async def test_a_crash_costs_the_file_in_work_and_no_waiting_one(pool, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"waiting{number}.txt")
        paths[-1].write_text(f"waiting number {number}")
    child = await running(pool)
    os.kill(child.pid, signal.SIGSTOP)  # so that it is at the file when it dies
    victim = asyncio.create_task(pool.identify(os.fsencode(tmp_path / "a.txt")), name="victim")
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(pool.identify_extract(os.fsencode(path)), name=path.name) for path in paths]
    await asyncio.sleep(0.05)
    os.kill(child.pid, signal.SIGSEGV)
    os.kill(child.pid, signal.SIGCONT)
    with pytest.raises(errors.BadAsset, match=r"killed its reader: .*SIGSEGV"):
        await victim
    texts = [(await task)[1].segments[0].text for task in waiting]
    assert texts == [f"waiting number {number}" for number in range(5)]


async def test_a_worker_killed_from_outside_does_not_make_its_file_bad(pool, tmp_path):
    (tmp_path / "a.txt").write_text("innocent")
    child = await running(pool)
    os.kill(child.pid, signal.SIGSTOP)
    reading = asyncio.create_task(pool.identify_extract(os.fsencode(tmp_path / "a.txt")), name="reading")
    await asyncio.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    _, extraction = await reading
    assert extraction.segments[0].text == "innocent"


async def test_a_decoder_that_hangs_is_killed_in_time_and_the_next_file_is_read(hasty, tmp_path):
    path = tmp_path / "hang.html"
    path.write_text("<html><body><p>some page</p></body></html>")
    found = await hasty.identify(os.fsencode(path))
    child = await running(hasty)
    os.kill(child.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(errors.BadAsset, match=r"longer than 0\.5 s"):
        await hasty.extract(os.fsencode(path), found)
    assert time.monotonic() - begun < 2
    await check_neighbour(hasty, tmp_path)
    assert hasty.snapshot().deaths == 1


async def test_a_disk_that_hangs_delays_the_file_and_does_not_make_it_bad(hasty, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    child = await running(hasty)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(errors.RetryLater, match="no byte") as caught:
        await hasty.identify(os.fsencode(tmp_path / "a.txt"))
    assert not isinstance(caught.value, errors.BadAsset)
    await check_neighbour(hasty, tmp_path)


async def test_one_unreadable_page_is_named_and_the_others_are_read(pool, tmp_path):
    path = tmp_path / "scan.pdf"
    path.write_bytes(media_corpus.scanned_pdf(("GLASS WORKSHOP",)))
    found = await pool.identify(os.fsencode(path))
    extraction = await pool.ocr(os.fsencode(path), found, (1, 99))
    assert {segment.page for segment in extraction.segments} == {1}
    assert extraction.segments[0].kind is SegmentKind.OCR
    assert extraction.metadata["ocr_failed_pages"] == [99]
    assert "page 99" in extraction.note


async def test_a_cancelled_call_replaces_its_worker_and_blocks_nobody(pool, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    child = await running(pool)
    os.kill(child.pid, signal.SIGSTOP)
    reading = asyncio.create_task(pool.identify(os.fsencode(tmp_path / "a.txt")), name="reading")
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await check_neighbour(pool, tmp_path)
    assert (await running(pool)).pid != child.pid


async def test_a_worker_is_recycled_after_its_share_of_files(tmp_path):
    pool = Extractors(ExtractSettings(recycle_after=3), Limits())
    try:
        for _ in range(7):
            await check_neighbour(pool, tmp_path)
        assert pool.snapshot().recycled == 2
    finally:
        await pool.close()


async def test_a_small_idle_worker_stays_and_a_large_one_gives_its_memory_back(pool, tmp_path):
    pool._pool._idle_s = 0.1
    await check_neighbour(pool, tmp_path)
    child = await running(pool)
    await asyncio.sleep(0.4)
    await check_neighbour(pool, tmp_path)
    assert (await running(pool)).pid == child.pid
    pool._pool._keep_idle_bytes = 1024  # every worker is large
    await check_neighbour(pool, tmp_path)
    async with asyncio.timeout(5):
        while pool.snapshot().workers:
            await asyncio.sleep(0.02)
    await check_neighbour(pool, tmp_path)


async def test_closing_leaves_no_process_and_answers_everybody(tmp_path):
    pool = Extractors(ExtractSettings(workers=2), Limits())
    (tmp_path / "a.txt").write_text("a")
    calls = [asyncio.create_task(pool.identify(os.fsencode(tmp_path / "a.txt")), name=f"c{n}") for n in range(30)]
    while not pool.snapshot().workers:
        await asyncio.sleep(0.01)
    pids = [seat.child.pid for seat in pool._pool._seats if seat.child]
    await pool.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert not [
        outcome
        for outcome in outcomes
        if isinstance(outcome, BaseException) and not isinstance(outcome, errors.RetryLater)
    ]
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    with pytest.raises(errors.RetryLater):
        await pool.identify(b"/etc/hostname")
