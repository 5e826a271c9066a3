"""Values that the catalog answers with, and how rows become them. No SQL here but column order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from msearchd import errors
from msearchd.domain.asset import (
    AssetId,
    AssetState,
    ContentHash,
    ContentId,
    DirId,
    RootId,
    RootState,
    StatFingerprint,
)
from msearchd.domain.media import Identified, Modality, Segment, SegmentKind
from msearchd.domain.space import ModelKey, SpaceName

#: Codes in segment ids. Never renumber: rows and full-text rows hold them.
KIND_CODES: Final[dict[SegmentKind, int]] = {
    SegmentKind.BODY: 0,
    SegmentKind.METADATA: 1,
    SegmentKind.OCR: 2,
    SegmentKind.TRANSCRIPT: 3,
    SegmentKind.FRAME: 4,
    SegmentKind.IMAGE: 5,
    SegmentKind.AUDIO: 6,
    SegmentKind.PAGE: 7,
}
#: In the order of the last columns of `content_by_id`.
_SAMPLES: Final = (SegmentKind.IMAGE, SegmentKind.AUDIO, SegmentKind.PAGE)
_KINDS: Final = {code: kind for kind, code in KIND_CODES.items()}
#: OCR numbers its segments by page, ten thousand a page: room for 26,000 pages.
_SEQ_BITS: Final = 28
_KIND_BITS: Final = 4
CONTENT_SHIFT: Final = _SEQ_BITS + _KIND_BITS
_MASK_64: Final = (1 << 64) - 1


def segment_id(content: int, kind: SegmentKind, seq: int) -> int:
    """Row id of a segment. Raises BadAsset where *seq* is past the last id of its kind."""
    if not 0 <= seq < 1 << _SEQ_BITS:
        message = f"passage {seq} is past the {1 << _SEQ_BITS} that a file may have"
        raise errors.BadAsset(message, hint="split the file")
    return content << CONTENT_SHIFT | KIND_CODES[kind] << _SEQ_BITS | seq


def place_of(row_id: int) -> tuple[ContentId, SegmentKind, int]:
    """(content, kind, seq) of a segment's row id."""
    kind = _KINDS[row_id >> _SEQ_BITS & ((1 << _KIND_BITS) - 1)]
    return ContentId(row_id >> CONTENT_SHIFT), kind, row_id & ((1 << _SEQ_BITS) - 1)


def kind_of(code: int) -> SegmentKind:
    """The kind that a code in a segment id stands for."""
    return _KINDS[code]


def ids_of_content(content: int) -> tuple[int, int]:
    """First and last possible segment id of a content."""
    return content << CONTENT_SHIFT, ((content + 1) << CONTENT_SHIFT) - 1


def ids_of_kind(content: int, kind: SegmentKind) -> tuple[int, int]:
    """First and last possible segment id of one kind of a content."""
    first = content << CONTENT_SHIFT | KIND_CODES[kind] << _SEQ_BITS
    return first, first | ((1 << _SEQ_BITS) - 1)


def signed_64(value: int) -> int:
    """An unsigned 64-bit number (an inode on some network file systems) as SQLite can hold it."""
    value &= _MASK_64
    return value - (1 << 64) if value >> 63 else value


def unsigned_64(value: int) -> int:
    """The reverse of `signed_64`."""
    return value & _MASK_64


def fingerprint_of(size: int, mtime_ns: int, ctime_ns: int, inode: int) -> StatFingerprint:
    """A fingerprint from its four columns."""
    return StatFingerprint(size=size, mtime_ns=mtime_ns, ctime_ns=ctime_ns, inode=unsigned_64(inode))


@dataclass(frozen=True, slots=True)
class ContentRow:
    """What is known of a content."""

    id: ContentId
    content_hash: ContentHash
    uuid: UUID
    size: int
    mime: str
    type_label: str
    modality: Modality
    is_extracted: bool
    #: Text in pixels is wanted and not read yet.
    needs_ocr: bool
    has_ocr: bool
    wants_ocr: bool
    ocr_pages: tuple[int, ...]
    #: Segments with text, of all kinds.
    segments: int
    note: str
    metadata: dict[str, Any]
    #: Spaces that hold all of it, as it is now.
    live_spaces: frozenset[SpaceName]
    #: Spaces that hold points of it: the live ones, and those that miss segments which came since.
    placed_spaces: frozenset[SpaceName]
    #: Model keys that jobs name these by.
    live_models: frozenset[ModelKey]
    #: Assets that show it now.
    visible: int
    #: Places without text that it has: pictures, windows of sound, page images.
    samples: frozenset[SegmentKind] = frozenset()
    #: Its speech is written down to its end.
    is_heard: bool = False
    #: Milliseconds up to which it is.
    heard_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class AssetRow:
    """What is known of a file."""

    id: AssetId
    root: RootId
    root_state: RootState
    dir: DirId
    path: bytes  # absolute
    relative: bytes  # to the root
    fingerprint: StatFingerprint
    content: ContentId | None
    state: AssetState
    reason: str
    is_gone: bool
    gone_ms: int | None
    mime: str = ""
    type_label: str = ""
    modality: Modality | None = None

    @property
    def modified_ms(self) -> int:
        """Modification time, UTC milliseconds."""
        return self.fingerprint.mtime_ns // 1_000_000

    def identified(self, content: ContentRow) -> Identified:
        """What `identify` found of it, as extractors want it: the remembered fingerprint with the content's type."""
        return Identified(
            fingerprint=self.fingerprint,
            content_hash=content.content_hash,
            mime=content.mime,
            type_label=content.type_label,
            modality=content.modality,
        )


@dataclass(frozen=True, slots=True)
class TreeMove:
    """A folder at its new place. A rename (same parent) changes no point; a move changes the folder lists of points."""

    is_rename: bool
    dir_id: DirId


@dataclass(frozen=True, slots=True)
class Totals:
    """Sizes of the index. Assets by state add up to `assets`."""

    assets: int
    by_state: dict[AssetState, int]
    contents: int
    segments: int
    points: dict[SpaceName, int]


@dataclass(frozen=True, slots=True)
class RankedSegment:
    """A segment whose words match. `score` is -bm25 (higher is better); `is_full`: it has all words asked for."""

    content: ContentId
    kind: SegmentKind
    seq: int
    score: float
    is_full: bool


@dataclass(frozen=True, slots=True)
class RankedName:
    """A file whose name matches; `score` in 0 to 1, `is_exact`: the name (or it without extension) is the question."""

    asset: AssetId
    content: ContentId | None
    score: float
    is_exact: bool


@dataclass(frozen=True, slots=True)
class ShownSegment:
    """A live point joined with the catalog: it may be shown."""

    content: ContentId
    kind: SegmentKind
    seq: int
    score: float


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A file that a hit shows: one visible asset that satisfies the filters, and where else the same bytes lie."""

    asset: AssetId
    content: ContentId | None
    path: bytes
    size: int
    modified_ms: int
    mime: str
    type_label: str
    modality: Modality
    is_online: bool
    same_content: tuple[bytes, ...] = field(default=())


def content_row(row: Sequence[Any], live: Sequence[tuple[str, int, str | None]]) -> ContentRow:
    """From the columns of `content_by_id` and rows (space, is_complete, model if it is the model's newest space)."""
    (
        id_,
        hash_,
        uuid,
        size,
        mime,
        label,
        modality,
        extracted,
        wants_ocr,
        pages,
        ocr,
        segments,
        note,
        metadata,
        visible,
        heard,
        heard_until,
        *has_samples,
    ) = row
    return ContentRow(
        id=ContentId(id_),
        content_hash=ContentHash(hash_),
        uuid=UUID(bytes=uuid),
        size=size,
        mime=mime,
        type_label=label,
        modality=Modality(modality),
        is_extracted=extracted is not None,
        needs_ocr=bool(wants_ocr) and ocr is None,
        has_ocr=ocr is not None,
        wants_ocr=bool(wants_ocr),
        ocr_pages=tuple(json.loads(pages)),
        segments=segments,
        note=note,
        metadata=json.loads(metadata),
        live_spaces=frozenset(SpaceName(space) for space, is_complete, _ in live if is_complete),
        placed_spaces=frozenset(SpaceName(space) for space, _, _ in live),
        live_models=frozenset(ModelKey(model) for _, is_complete, model in live if is_complete and model is not None),
        visible=visible,
        samples=frozenset(kind for kind, has in zip(_SAMPLES, has_samples, strict=True) if has),
        is_heard=heard is not None,
        heard_until_ms=heard_until,
    )


def segment_of(row_id: int, text: str, *places: int | None) -> Segment:
    """From the columns id, text, char_start, char_end, page, t0_ms, t1_ms."""
    _, kind, seq = place_of(row_id)
    char_start, char_end, page, t0_ms, t1_ms = places
    return Segment(kind, seq, text, char_start, char_end, page, t0_ms, t1_ms)
