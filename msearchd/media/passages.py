"""From a Reading to an Extraction: cut the text at the limit, chunk it, add the METADATA segment. Pure."""

from __future__ import annotations

from itertools import islice
from typing import Final

from msearchd.domain.media import Extraction, Segment, SegmentKind
from msearchd.media import chunk, metadata
from msearchd.media.extractor import Reading, ReadRules

#: Room for one page's OCR passages in the numbering.
SEGMENTS_A_PAGE: Final = 10_000


def extraction_of(reading: Reading, rules: ReadRules) -> Extraction:
    """BODY segments with exact offsets and pages, then one METADATA segment if there is something in it."""
    text, note = reading.text, reading.note
    if len(text) > rules.max_text_chars:
        text = text[: rules.max_text_chars]
        note = "; ".join(filter(None, (note, f"cut at {rules.max_text_chars:,} characters")))
    pages = [(offset, page) for offset, page in reading.page_starts if offset < len(text)]
    facts = metadata.flat({**reading.metadata, "characters": len(text) or None})
    if note and text is not reading.text:
        facts["truncated"] = True
    segments = body_segments(text, rules=rules, reading=reading, pages=pages)
    if searched := metadata.searchable(facts):
        segments.extend(
            Segment(SegmentKind.METADATA, seq, searched[part.start : part.end], part.start, part.end)
            for seq, part in enumerate(chunk.split_text(searched, rules=rules.chunk))
        )
    segments.extend(reading.places)
    if not note and not segments and not reading.wants_ocr and not reading.ocr_pages:
        note = "empty" if not text else "there is nothing but white space in it"
    return Extraction(tuple(segments), facts, ocr_pages=reading.ocr_pages, wants_ocr=reading.wants_ocr, note=note)


def body_segments(text: str, *, rules: ReadRules, reading: Reading, pages: list[tuple[int, int]]) -> list[Segment]:
    """The passages of *text* as BODY segments, numbered from 0."""
    passages = chunk.split_text(text, rules=rules.chunk, structure=reading.structure, page_starts=pages)
    return [
        Segment(SegmentKind.BODY, seq, text[part.start : part.end], part.start, part.end, part.page)
        for seq, part in enumerate(passages)
    ]


def ocr_segments(text: str, *, rules: ReadRules, page: int | None, offset: int) -> list[Segment]:
    """OCR segments of a picture (page None) or of one page whose text begins at *offset* of the text of all pages.

    Numbered by page, so that a page that could not be read this time does not rename the others' points.
    """
    first = 0 if page is None else page * SEGMENTS_A_PAGE
    return [
        Segment(
            SegmentKind.OCR, first + number, text[part.start : part.end], offset + part.start, offset + part.end, page
        )
        for number, part in enumerate(islice(chunk.split_text(text, rules=rules.chunk), SEGMENTS_A_PAGE))
    ]
