import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.domain.asset import ContentHash, StatFingerprint
from msearchd.domain.media import Extraction, Identified, Modality, Segment, SegmentKind
from msearchd.media import metadata, shapes
from msearchd.media.chunk import ChunkRules
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.image import _degrees, _time
from msearchd.media.markup import stripped
from msearchd.media.ocr import in_reading_order
from msearchd.media.passages import extraction_of, ocr_segments
from msearchd.media.source import file_errors

_SEGMENTS = st.builds(
    Segment,
    st.sampled_from(SegmentKind),
    st.integers(0, 10**6),
    st.text(max_size=50),
    char_start=st.none() | st.integers(0, 9),
    char_end=st.none() | st.integers(0, 9),
    page=st.none() | st.integers(1, 9),
)


@given(st.lists(_SEGMENTS, max_size=5), st.text(), st.booleans(), st.lists(st.integers(1, 99)))
def test_an_extraction_crosses_the_wire_unchanged(segments, note, wants_ocr, pages):
    extraction = Extraction(tuple(segments), {"title": "x", "pages": 3}, tuple(pages), wants_ocr, note)
    frames = list(shapes.extraction_to_wire(extraction))
    back = [segment for frame in frames for segment in shapes.segments_from_wire(frame["segments"])]
    assert shapes.extraction_from_wire(back, frames[-1]) == extraction


def test_an_identification_crosses_the_wire_unchanged():
    found = Identified(StatFingerprint(1, 2, 3, 4), ContentHash(b"h" * 32), "text/plain", "txt", Modality.TEXT)
    assert shapes.identified_from_wire(shapes.identified_to_wire(found)) == found


def test_a_long_extraction_is_sent_in_small_frames():
    segments = tuple(Segment(SegmentKind.BODY, n, "x" * 800, n, n + 800) for n in range(2000))
    frames = list(shapes.extraction_to_wire(Extraction(segments)))
    assert len(frames) > 5
    assert all("metadata" not in frame for frame in frames[:-1])


def test_a_text_beyond_the_limit_is_cut_and_says_so():
    extraction = extraction_of(Reading("word " * 1000), ReadRules(max_text_chars=2000))
    assert max(segment.char_end for segment in extraction.segments) <= 2000
    assert "cut at 2,000" in extraction.note
    assert extraction.metadata["truncated"] is True


def test_metadata_becomes_one_searchable_segment():
    reading = Reading(
        "Text.", metadata={"title": "Bees", "author": "Astrid", "page_count": 2, "empty": "", "none": None}
    )
    extraction = extraction_of(reading, ReadRules())
    segment = extraction.segments[-1]
    assert (segment.kind, segment.text) == (SegmentKind.METADATA, "Title: Bees\nAuthor: Astrid")
    assert "empty" not in extraction.metadata
    assert "none" not in extraction.metadata


def test_a_date_alone_is_not_worth_a_segment():
    assert metadata.searchable({"created": "2024-03-01"}) == ""


def test_ocr_segments_of_a_page_keep_their_numbers_whatever_other_pages_do():
    rules = ReadRules(chunk=ChunkRules(100, 0))
    alone = ocr_segments("lantern " * 30, rules=rules, page=7, offset=0)
    later = ocr_segments("lantern " * 30, rules=rules, page=7, offset=5000)
    assert [item.seq for item in alone] == [item.seq for item in later] == [70_000, 70_001, 70_002]
    assert later[0].char_start == 5000
    assert {item.page for item in later} == {7}


def box(left, top, width=100, height=20):
    return [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]


def test_ocr_lines_are_read_from_top_to_bottom_and_left_to_right():
    boxes = [box(200, 101), box(0, 200), box(0, 100), box(0, 130)]
    assert in_reading_order(boxes, ["north", "end", "true", "next"]) == "true north\nnext\n\nend"


def test_an_svg_bomb_is_never_expanded():
    assert stripped('<!DOCTYPE svg [<!ENTITY a "boom">]><svg><style>x</style><text>hi &amp; bye</text></svg>').endswith(
        "hi & bye"
    )


def test_exif_places_and_times_are_plain_values():
    assert _degrees({1: "S", 2: (33.0, 51.0, 36.0)}, 1) == pytest.approx(-33.86)
    assert _degrees({1: "N", 2: (33.0,)}, 1) is None
    assert _time("2024:03:01 12:30:00\0", "+01:00") == "2024-03-01T12:30:00+01:00"
    assert _time("0000:00:00 00:00:00", None) == ""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(2, "x"), errors.NotFound),
        (PermissionError(13, "x"), errors.BadAsset),
        (OSError(5, "x"), errors.RetryLater),
        (OSError(116, "x"), errors.RetryLater),
        (OSError(40, "x"), errors.BadAsset),
    ],
)
def test_every_trouble_with_a_file_has_its_verb(error, kind):
    with pytest.raises(kind), file_errors():
        raise error
