"""Files as they are on real disks: gone, growing, replaced, no files at all. Through the real worker."""

import asyncio
import os
import socket

import pytest

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.media.client import ChangedWhileReading, Extractors
from msearchd.settings.model import ExtractSettings


@pytest.fixture
async def extractors():
    pool = Extractors(ExtractSettings(), Limits())
    yield pool
    await pool.close()


async def test_an_empty_file_is_an_extraction_with_a_note(extractors, tmp_path):
    (tmp_path / "empty.md").touch()
    found, extraction = await extractors.identify_extract(os.fsencode(tmp_path / "empty.md"))
    assert found.fingerprint.size == 0
    assert (extraction.segments, extraction.note) == ((), "empty")


async def test_a_name_that_is_no_utf8_is_read_like_any_other(extractors, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9 \xff.txt"
    with open(path, "w") as file:
        file.write("coffee on the quay")
    _, extraction = await extractors.identify_extract(path)
    assert extraction.segments[0].text == "coffee on the quay"


async def test_a_document_with_a_name_that_is_no_utf8_is_read_too(extractors, tmp_path):
    import media_corpus

    path = os.fsencode(tmp_path) + b"/\xff.pdf"
    with open(path, "wb") as file:
        file.write(media_corpus.scanned_pdf(("HARBOUR MASTER",)))
    found = await extractors.identify(path)
    extraction = await extractors.extract(path, found)
    ocr = await extractors.ocr(path, found, extraction.ocr_pages)
    assert "HARBOUR" in ocr.segments[0].text


async def test_a_vanished_file_is_not_found(extractors, tmp_path):
    path = tmp_path / "gone.txt"
    with pytest.raises(errors.NotFound):
        await extractors.identify(os.fsencode(path))
    with pytest.raises(errors.NotFound):
        await extractors.identify(os.fsencode(path / "below-a-file-that-is-none"))
    path.write_text("here")
    found = await extractors.identify(os.fsencode(path))
    path.unlink()
    with pytest.raises(errors.NotFound):
        await extractors.extract(os.fsencode(path), found)


async def test_what_is_no_file_is_bad_and_says_what_it_is(extractors, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "target").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        for name, word in (("pipe", "pipe"), ("link", "symbolic link"), ("socket", "socket"), (".", "directory")):
            with pytest.raises(errors.BadAsset, match=word):
                await extractors.identify(os.fsencode(tmp_path / name))
    with pytest.raises(errors.BadAsset, match="device"):
        await extractors.identify(b"/dev/zero")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_an_unreadable_file_is_bad_and_says_what_to_do(extractors, tmp_path):
    path = tmp_path / "locked.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(errors.BadAsset, match="ermission") as caught:
        await extractors.identify(os.fsencode(path))
    assert "allow" in caught.value.hint


async def test_bytes_other_than_those_identified_are_never_extracted(extractors, tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("first words")
    found = await extractors.identify(os.fsencode(path))
    path.write_text("other words")
    os.utime(path, ns=(found.fingerprint.mtime_ns, found.fingerprint.mtime_ns))  # same size, same mtime, same inode
    with pytest.raises(ChangedWhileReading):
        await extractors.extract(os.fsencode(path), found)
    assert extractors.snapshot().deaths == 0


async def test_a_chmod_between_the_steps_changes_nothing(extractors, tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("first words")
    found = await extractors.identify(os.fsencode(path))
    path.chmod(0o600)
    assert (await extractors.extract(os.fsencode(path), found)).segments[0].text == "first words"


async def test_a_file_that_grows_while_it_is_read_is_never_identified_half(extractors, tmp_path):
    path = tmp_path / "growing.log"
    stop = asyncio.Event()

    async def grow():
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"a line of the log\n" * 4000)
                await asyncio.sleep(0)

    path.write_bytes(b"x" * 80 * 1024**2)
    growing = asyncio.create_task(grow(), name="grow")
    try:
        with pytest.raises(ChangedWhileReading):
            await extractors.identify(os.fsencode(path))
    finally:
        stop.set()
        await growing
    from blake3 import blake3

    found = await extractors.identify(os.fsencode(path))
    assert found.content_hash == blake3(path.read_bytes()).digest()


async def test_a_huge_text_is_cut_with_a_note(tmp_path):
    pool = Extractors(ExtractSettings(max_text_chars=1000), Limits())
    try:
        path = tmp_path / "huge.log"
        path.write_text("a line of the log\n" * 400_000)
        found = await pool.identify(os.fsencode(path))
        extraction = await pool.extract(os.fsencode(path), found)
    finally:
        await pool.close()
    assert "cut at 1,000 characters" in extraction.note
    assert sum(len(segment.text) for segment in extraction.segments) < 2000
