"""Every type of the corpus through the real worker process."""

import os
import subprocess
import sys

import media_corpus
import pytest

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.job import Step
from msearchd.domain.media import SegmentKind
from msearchd.media.client import Extractors
from msearchd.media.registry import steps_for
from msearchd.settings.model import ExtractSettings

SETTINGS = ExtractSettings()
CORPUS = media_corpus.corpus()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    media_corpus.write_corpus(path)
    return path


@pytest.fixture
async def extractors():
    pool = Extractors(SETTINGS, Limits())
    yield pool
    await pool.close()


async def read_all(pool, path):
    """(identified, extraction, OCR extraction) as the orchestrator would ask for them."""
    found, extraction = await pool.identify_extract(path)
    if extraction is None and Step.EXTRACT in steps_for(found, SETTINGS):
        extraction = await pool.extract(path, found)
    ocr = await pool.ocr(path, found, extraction.ocr_pages) if extraction is not None and extraction.wants_ocr else None
    return found, extraction, ocr


def check_body(extraction):
    bodies = [segment for segment in extraction.segments if segment.kind is SegmentKind.BODY]
    assert [segment.seq for segment in bodies] == list(range(len(bodies)))
    assert all(segment.char_end - segment.char_start == len(segment.text) <= SETTINGS.chunk_chars for segment in bodies)
    return bodies


async def test_every_type_is_recognised_and_its_words_are_found(extractors, folder):
    wrong = []
    for item in CORPUS:
        if item.ocr_words:
            continue
        found, extraction, _ = await read_all(extractors, os.fsencode(folder / item.name))
        text = "\n".join(segment.text for segment in extraction.segments)
        missing = [word for word in item.words if word not in text]
        pages = {segment.page for segment in check_body(extraction) if segment.page}
        differing = {
            key: extraction.metadata.get(key)
            for key, value in item.metadata.items()
            if extraction.metadata.get(key) != value
        }
        if (
            (found.type_label, found.modality) != (item.type_label, item.modality)
            or missing
            or differing
            or (item.pages and pages != set(range(1, item.pages + 1)))
        ):
            wrong.append((item.name, found.type_label, missing, pages, differing, text))
    assert not wrong
    assert extractors.snapshot().deaths == 0


async def test_text_in_pixels_is_read_upright_from_pictures_and_scanned_pages(extractors, folder):
    for item in CORPUS:
        if not item.ocr_words:
            continue
        found, extraction, ocr = await read_all(extractors, os.fsencode(folder / item.name))
        assert (found.type_label, found.modality) == (item.type_label, item.modality)
        assert {key: extraction.metadata.get(key) for key in item.metadata} == item.metadata
        text = "\n".join(segment.text for segment in extraction.segments)
        assert all(word in text for word in item.words)
        read = "\n".join(segment.text for segment in ocr.segments)
        assert all(word in read for word in item.ocr_words), (item.name, read)
        assert {segment.kind for segment in ocr.segments} == {SegmentKind.OCR}
        if item.type_label == "pdf":
            assert extraction.ocr_pages == (1, 2)
            assert [segment.page for segment in ocr.segments] == [1, 2]
            assert ocr.segments[1].char_start > ocr.segments[0].char_end


async def test_a_worker_that_sees_text_alone_stays_small(extractors, folder):
    for name in ("invoice.txt", "recipe.md", "tides.py", "levels.csv", "ferry.json", "bridge-utf16.txt", "meeting.eml"):
        await extractors.identify_extract(os.fsencode(folder / name))
    assert extractors.snapshot().resident_bytes < 48 * 1024**2


async def test_two_readings_of_the_same_bytes_are_the_same(extractors, folder):
    path = os.fsencode(folder / "bees.pdf")
    assert await read_all(extractors, path) == await read_all(extractors, path)


async def test_an_encrypted_document_has_a_note_and_no_text(extractors, tmp_path):
    (tmp_path / "secret.pdf").write_bytes(media_corpus.pdf(("nobody may read this",), password="pw"))
    found, extraction, _ = await read_all(extractors, os.fsencode(tmp_path / "secret.pdf"))
    assert found.type_label == "pdf"
    assert extraction.segments == ()
    assert "encrypted" in extraction.note


async def test_reading_leaves_no_text_and_no_telemetry_on_the_disk(folder, tmp_path, monkeypatch):
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    pool = Extractors(SETTINGS, Limits(), work_dir=tmp_path / "work")
    try:
        for name in ("bees.pdf", "letter", "tides.py", "diary.html", "sign.png", "backup.zip"):
            await read_all(pool, os.fsencode(folder / name))
    finally:
        await pool.close()
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert [name for name in left if "libpdfium" not in name] == []
    assert all(name.startswith("work/") for name in left)
    assert (tmp_path / "work").stat().st_mode & 0o077 == 0


async def test_access_times_and_files_stay_as_they_are(extractors, folder):
    path = folder / "invoice.txt"
    os.utime(path, ns=(1_000_000_000, 2_000_000_000))
    before = path.stat()
    await read_all(extractors, os.fsencode(path))
    assert path.stat() == before


def test_a_missing_parser_says_what_to_type(monkeypatch):
    from msearchd.media import parser

    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    with pytest.raises(errors.Misconfigured, match="not installed") as caught:
        parser.library()
    assert "pip install" in caught.value.hint


async def test_an_office_file_with_a_password_has_a_note_and_no_text(extractors, tmp_path):
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016) + "EncryptedPackage".encode("utf-16-le") + bytes(992)
    (tmp_path / "secret.docx").write_bytes(data)
    _, extraction, _ = await read_all(extractors, os.fsencode(tmp_path / "secret.docx"))
    assert extraction.segments == ()
    assert "encrypted" in extraction.note


def test_the_daemon_side_imports_no_decoder():
    code = (
        "import sys; import msearchd.media.client, msearchd.media.registry; "
        "print({'numpy', 'PIL', 'kreuzberg', 'rapidocr', 'magika', 'onnxruntime', 'charset_normalizer'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
