"""How `Identified` and `Extraction` cross the wire: plain values, in frames small enough to be read between two events.

Both sides import this file; a test sends every shape there and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msearchd.domain.asset import ContentHash, StatFingerprint
from msearchd.domain.media import Extraction, Identified, Modality, Segment, SegmentKind

#: Characters of segment text in one frame: decoding one keeps the daemon's loop for about a millisecond.
_FRAME_CHARS: Final = 64 * 1024
_KINDS: Final = {kind.value: kind for kind in SegmentKind}


def identified_to_wire(found: Identified) -> list[Any]:
    """Plain values of *found*."""
    mark = found.fingerprint
    return [
        mark.size,
        mark.mtime_ns,
        mark.ctime_ns,
        mark.inode,
        found.content_hash,
        found.mime,
        found.type_label,
        found.modality.value,
    ]


def identified_from_wire(fields: Sequence[Any]) -> Identified:
    """Back from `identified_to_wire`."""
    size, mtime_ns, ctime_ns, inode, digest, mime, label, modality = fields
    return Identified(
        StatFingerprint(size, mtime_ns, ctime_ns, inode), ContentHash(digest), mime, label, Modality(modality)
    )


def extraction_to_wire(extraction: Extraction) -> Iterator[dict[str, Any]]:
    """Frames of *extraction*: segments in portions, the facts in the last."""
    portion: list[Segment] = []
    chars = 0
    for segment in extraction.segments:
        portion.append(segment)
        chars += len(segment.text)
        if chars >= _FRAME_CHARS:
            yield segments_to_wire(portion)
            portion, chars = [], 0
    yield _last_frame(portion, extraction)


def whole_extraction_to_wire(extraction: Extraction) -> dict[str, Any]:
    """*extraction* in one frame; for small ones."""
    return _last_frame(extraction.segments, extraction)


def is_last(frame: Mapping[str, Any]) -> bool:
    """True where *frame* ends an answer."""
    return not frame.keys().isdisjoint({"identified", "metadata", "changed"})


def _last_frame(segments: Iterable[Segment], extraction: Extraction) -> dict[str, Any]:
    return {
        **segments_to_wire(segments),
        "metadata": extraction.metadata,
        "ocr_pages": list(extraction.ocr_pages),
        "wants_ocr": extraction.wants_ocr,
        "note": extraction.note,
    }


def segments_to_wire(segments: Iterable[Segment]) -> dict[str, Any]:
    """One frame of segments."""
    return {
        "segments": [
            [
                item.kind.value,
                item.seq,
                item.text,
                item.char_start,
                item.char_end,
                item.page,
                item.t0_ms,
                item.t1_ms,
            ]
            for item in segments
        ]
    }


def segments_from_wire(rows: Iterable[Sequence[Any]]) -> list[Segment]:
    """Segments of one frame."""
    return [Segment(_KINDS[kind], seq, *rest) for kind, seq, *rest in rows]


def extraction_from_wire(segments: Sequence[Segment], facts: Mapping[str, Any]) -> Extraction:
    """The whole from all segments and the last frame."""
    return Extraction(
        tuple(segments), dict(facts["metadata"]), tuple(facts["ocr_pages"]), facts["wants_ocr"], facts["note"]
    )
