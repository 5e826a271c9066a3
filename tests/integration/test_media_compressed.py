"""Compressed single files: text is read, anything else is found by name, a bomb costs no more than what is read."""

import bz2
import gzip
import lzma
import os
import tracemalloc

import pytest

from msearchd import errors
from msearchd.media import archive, compressed, registry
from msearchd.media.extractor import ReadRules
from msearchd.media.source import opened

TEXT = "The ferry leaves at noon.\n" * 20
RULES = ReadRules()


def read(folder, name, data, rules=RULES):
    path = folder / name
    path.write_bytes(data)
    with opened(os.fsencode(path)) as source:
        return archive.read(source, registry.by_label("gzip"), rules)


@pytest.mark.parametrize(
    ("name", "pack"),
    [("notes.txt.gz", gzip.compress), ("app.log.1.gz", gzip.compress), ("a.md.bz2", bz2.compress), ("a.csv.xz", lzma.compress)],
)  # fmt: skip
def test_the_text_of_one_compressed_file_is_read(tmp_path, name, pack):
    reading = read(tmp_path, name, pack(TEXT.encode()))
    assert (reading.text, reading.note) == (TEXT, "")


def test_the_name_inside_says_how_the_text_is_cut(tmp_path):
    assert read(tmp_path, "tides.py.gz", gzip.compress(b"def tide(): ...\n")).structure is registry.Structure.CODE
    assert compressed.inner_name("app.log.12.gz") == "app.log"
    assert compressed.inner_name("syslog-20240501.gz") == "syslog"
    assert compressed.inner_name("gz") == "gz"


def test_what_is_no_text_inside_is_found_by_name(tmp_path):
    reading = read(tmp_path, "disk.img.gz", gzip.compress(bytes(range(256)) * 100))
    assert (reading.text, "found by name only" in reading.note) == ("", True)
    assert read(tmp_path, "page.pdf.gz", gzip.compress(b"%PDF-1.7")).note == "a compressed pdf: found by name only"


def test_an_empty_one_is_empty_and_a_broken_one_says_so(tmp_path):
    assert read(tmp_path, "empty.txt.gz", gzip.compress(b"")).note == "empty"
    with pytest.raises(errors.BadAsset, match="cannot be unpacked"):
        read(tmp_path, "torn.txt.gz", gzip.compress(b"")[:6])


def test_a_torn_one_is_read_up_to_where_it_is_torn(tmp_path):
    words = " ".join(str(number * 7919) for number in range(200_000)).encode()
    packed = gzip.compress(words)
    reading = read(tmp_path, "torn.log.gz", packed[: len(packed) // 2])
    assert reading.text.startswith("0 7919 15838")
    assert reading.note.startswith("damaged after ")


def test_a_bomb_costs_what_is_read_and_no_more(tmp_path):
    bomb = gzip.compress(b"x" * 200_000_000, 1)
    tracemalloc.start()
    reading = read(tmp_path, "bomb.txt.gz", bomb, ReadRules(max_text_chars=1_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(reading.text) == 4_000_004
    assert peak < 30_000_000
