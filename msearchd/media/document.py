"""PDF, Office, OpenDocument, EPUB, RTF: text with page numbers, metadata, and the pages whose text is only in pixels.

In: an open document of at most 512 MiB. Out: a Reading. An encrypted document gives a note and no text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msearchd import errors
from msearchd.domain.media import Segment, SegmentKind
from msearchd.media import archive
from msearchd.media.extractor import MAX_DOCUMENT_BYTES, Reading, ReadRules
from msearchd.media.markup import stripped
from msearchd.media.parser import ENCRYPTED, Parsed, parse
from msearchd.media.registry import FileType
from msearchd.media.source import Source
from msearchd.media.text import clean

#: A page with fewer letters and digits is taken for a picture (a scan often has a stamp or a page number as text).
_MIN_PAGE_LETTERS: Final = 16
#: Pages that a model of page images may see; a longer book is found by its text.
_MOST_PAGES_SEEN: Final = 2000
_LETTER: Final = re.compile(r"\w")
#: Zip-based documents whose members unpack to more are bombs or nothing that a person reads.
_MAX_UNPACKED_BYTES: Final = 1024**3
_OLE: Final = b"\xd0\xcf\x11\xe0"
_ZIPPED: Final = frozenset({"docx", "xlsx", "pptx", "odt", "ods", "odp", "epub"})


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:
    """Read a document. Raises BadAsset with a sentence where the parser cannot, Misconfigured where there is no
    parser.
    """
    if source.size > MAX_DOCUMENT_BYTES:
        return Reading(note=f"larger than {MAX_DOCUMENT_BYTES // 1024**2} MB: found by name only")
    if source.read(4) == _OLE[:4] and kind.label in _ZIPPED:  # Office wraps what it encrypts (MS-OFFCRYPTO 2.3)
        return Reading(metadata={"encrypted": True}, note=ENCRYPTED)
    if kind.label in _ZIPPED:
        archive.refuse_bomb(source, max_bytes=_MAX_UNPACKED_BYTES)
    if kind.label == "odp":
        return Reading(stripped(archive.member(source, "content.xml").decode("utf-8", "replace")))
    try:
        parsed = parse(source.read(MAX_DOCUMENT_BYTES), mime=kind.mime)
    except errors.BadAsset as error:
        if str(error) == ENCRYPTED:
            return Reading(metadata={"encrypted": True}, note=error.sentence())
        raise
    metadata = {**_facts(parsed.metadata), "page_count": parsed.page_count}
    ocr_pages, note = _scanned_pages(parsed, rules) if kind.label == "pdf" else ((), "")
    text, starts = _cleaned(parsed)
    pages = range(1, min(parsed.page_count or 0, _MOST_PAGES_SEEN) + 1) if kind.label == "pdf" else ()
    return Reading(
        text,
        metadata=metadata,
        page_starts=starts,
        ocr_pages=ocr_pages,
        wants_ocr=bool(ocr_pages),
        note=note,
        places=[Segment(SegmentKind.PAGE, page, page=page) for page in pages],
    )


def _cleaned(parsed: Parsed) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Clean text, with the page starts moved along where cleaning changed lengths."""
    pieces, starts, length = [], [], 0
    for begin, end, page in _spans(parsed):
        piece = clean(parsed.text[begin:end])
        if page is not None:
            starts.append((length, page))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), tuple(starts)


def _spans(parsed: Parsed) -> list[tuple[int, int, int | None]]:
    """(begin, end, page) of the whole text in order; page None before the first page or where pages are not known."""
    marks: list[tuple[int, int | None]] = [(0, None), *parsed.page_starts]
    ends = [offset for offset, _ in marks[1:]] + [len(parsed.text)]
    return [(begin, end, page) for (begin, page), end in zip(marks, ends, strict=True)]


def _scanned_pages(parsed: Parsed, rules: ReadRules) -> tuple[tuple[int, ...], str]:
    if not rules.ocr or parsed.page_count == 0:
        return (), ""
    letters = dict.fromkeys(range(1, parsed.page_count + 1), 0)
    for begin, end, page in _spans(parsed):
        if page is not None:
            letters[page] = len(_LETTER.findall(parsed.text[begin : min(end, begin + 4000)]))
    scanned = tuple(page for page, count in letters.items() if count < _MIN_PAGE_LETTERS)
    if len(scanned) <= rules.ocr_max_pages:
        return scanned, ""
    return scanned[
        : rules.ocr_max_pages
    ], f"only the first {rules.ocr_max_pages} of {len(scanned)} scanned pages are read"


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """The parser's metadata in our words."""
    core = found.get("core_properties")
    core = core if isinstance(core, Mapping) else {}
    authors = found.get("authors") or found.get("created_by") or core.get("creator")
    return {
        "title": found.get("title"),
        "subject": found.get("subject") or core.get("subject"),
        "author": ", ".join(map(str, authors)) if isinstance(authors, list) else authors,
        "keywords": found.get("keywords") if isinstance(found.get("keywords"), list | str) else core.get("keywords"),
        "description": found.get("description") or core.get("description"),
        "language": found.get("language"),
        "created": found.get("created_at"),
        "modified": found.get("modified_at"),
        "publisher": found.get("publisher"),
        "software": found.get("producer") or found.get("creator"),
        "sheet_names": found.get("sheet_names"),
    }
