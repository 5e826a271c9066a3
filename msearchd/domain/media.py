"""What a file is (modality, type) and what is in it (segments)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Final

from msearchd.domain.asset import ContentHash, StatFingerprint


class Modality(enum.StrEnum):
    """The kind of thing a person would call the file."""

    TEXT = "text"
    DOCUMENT = "document"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    OTHER = "other"  # found by name only


class SegmentKind(enum.StrEnum):
    """Where a segment's text comes from. Part of a point's id: never rename a value."""

    BODY = "body"  # text of the file itself, characters char_start..char_end
    OCR = "ocr"  # text read from an image or a scanned page
    TRANSCRIPT = "transcript"  # speech, seconds t0..t1
    METADATA = "metadata"  # title, author, EXIF, tags, as one searchable text
    FRAME = "frame"  # a picture out of a video, at t0
    IMAGE = "image"  # the picture itself
    AUDIO = "audio"  # an audio window t0..t1
    PAGE = "page"  # a page image


_TEXTS: Final = frozenset({SegmentKind.BODY, SegmentKind.OCR, SegmentKind.TRANSCRIPT, SegmentKind.METADATA})
#: What a model embeds, by what it serves; each space holds segments of one of these.
KINDS_OF: Final[dict[str, frozenset[SegmentKind]]] = {
    "text": _TEXTS,
    "sparse": _TEXTS,
    "image": frozenset({SegmentKind.IMAGE, SegmentKind.FRAME}),
    "audio": frozenset({SegmentKind.AUDIO}),
    "page": frozenset({SegmentKind.PAGE}),
}
#: What is served by models that embed passages of text: one dense vector, or some weighted words, of each.
OF_TEXT: Final = frozenset(serves for serves, kinds in KINDS_OF.items() if kinds == _TEXTS)


@dataclass(frozen=True, slots=True)
class Segment:
    """A place in a content. (kind, seq) names it within its content and never changes for the same bytes and chunking.

    Offsets are characters of the extracted text of its kind; pages count from 1; times are milliseconds.
    """

    kind: SegmentKind
    seq: int
    text: str = ""
    char_start: int | None = None
    char_end: int | None = None
    page: int | None = None
    t0_ms: int | None = None
    t1_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """What `identify` found: the bytes' name, the type by content, and the stat that held before and after reading."""

    fingerprint: StatFingerprint
    content_hash: ContentHash
    mime: str
    #: Short type name that people filter by: "pdf", "markdown", "python", "jpeg".
    type_label: str
    modality: Modality


@dataclass(frozen=True, slots=True)
class Extraction:
    """All that `extract` or `ocr` read from one content."""

    segments: tuple[Segment, ...]
    #: Flat, JSON-able: title, author, created, width, height, camera, page_count, encoding, truncated …
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Pages (from 1) whose text is only in pixels; empty for an image means the picture itself wants OCR if wants_ocr.
    ocr_pages: tuple[int, ...] = ()
    wants_ocr: bool = False
    #: Why there is less than a person would expect ("encrypted", "cut at 20 MB"); empty if all is well.
    note: str = ""
