"""What a reader gets and gives: the seam inside the extract worker.

A reader is a module with `read(source, kind, rules) -> Reading`, named by `registry.Reader`. It raises BadAsset with a
sentence, or returns a Reading with a `note` where there is less than a person would expect. It sees one open file, and
nothing of the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from msearchd.domain.media import Segment
from msearchd.media.chunk import ChunkRules
from msearchd.media.registry import FileType, Structure
from msearchd.media.source import Source

#: A document is parsed from memory; a larger one is found by name only.
MAX_DOCUMENT_BYTES: Final = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class ReadRules:
    """What the settings say about reading, as plain values that cross the wire."""

    max_text_chars: int = 10_000_000
    chunk: ChunkRules = field(default_factory=ChunkRules)
    ocr: bool = True
    ocr_max_pages: int = 200
    max_image_pixels: int = 300_000_000

    def as_args(self) -> dict[str, Any]:
        """Plain values for the worker's start arguments."""
        return {
            "max_text_chars": self.max_text_chars,
            "chunk_chars": self.chunk.max_chars,
            "chunk_overlap_chars": self.chunk.overlap_chars,
            "ocr": self.ocr,
            "ocr_max_pages": self.ocr_max_pages,
            "max_image_pixels": self.max_image_pixels,
        }

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> ReadRules:
        """Back from `as_args`."""
        return cls(
            max_text_chars=args["max_text_chars"],
            ocr=args["ocr"],
            ocr_max_pages=args["ocr_max_pages"],
            chunk=ChunkRules(args["chunk_chars"], args["chunk_overlap_chars"]),
            max_image_pixels=args["max_image_pixels"],
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader found: the whole text, where its pages begin, and flat metadata."""

    text: str = ""
    structure: Structure = Structure.PROSE
    page_starts: Sequence[tuple[int, int]] = ()  # (offset into text, page from 1)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ocr_pages: tuple[int, ...] = ()
    wants_ocr: bool = False
    note: str = ""
    #: Places without text that models of pixels and sound embed: the picture, its pages, windows of sound.
    places: Sequence[Segment] = ()


class ReadFile(Protocol):
    """The one function of a reader module."""

    def __call__(self, source: Source, kind: FileType, rules: ReadRules) -> Reading:
        """Read *source*, whose content is of type *kind*. Raises BadAsset or RetryLater."""
        ...
