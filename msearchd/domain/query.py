"""Questions and hits."""

from __future__ import annotations

from dataclasses import dataclass, field

from msearchd.domain.asset import AssetId
from msearchd.domain.media import Modality, SegmentKind


@dataclass(frozen=True, slots=True)
class Filters:
    """What a hit must satisfy. Empty means everything."""

    #: Absolute folders; a hit lies in one of them.
    folders: tuple[bytes, ...] = ()
    #: Type labels ("pdf"), extensions (".pdf"), modalities ("image") or MIME types ("image/*"); a hit matches one.
    types: tuple[str, ...] = ()
    modified_after_ms: int | None = None
    modified_before_ms: int | None = None
    min_size_bytes: int | None = None
    max_size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A question in words, by example, or both. `limit` counts files.

    `image`, `audio`: a file whose picture or sound is looked for, indexed or not; `like`: a file of any kind, for others
    like it. `wait_s`: how long to wait for a model that still loads; None: no longer than worth while.
    """

    text: str = ""
    limit: int = 10
    filters: Filters = field(default_factory=Filters)
    image: bytes | None = None
    audio: bytes | None = None
    like: bytes | None = None
    wait_s: float | None = None

    @property
    def has_example(self) -> bool:
        """True where a file is asked with."""
        return self.image is not None or self.audio is not None or self.like is not None


@dataclass(frozen=True, slots=True)
class ListRank:
    """Where one ranked list put the hit: rank from 1, the list's own score."""

    list: str  # "words" | "names" | "learned words" (of the sparse space) | a space name
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A ranked segment of a file, with the reason for its rank."""

    asset: AssetId
    path: bytes
    modality: Modality
    mime: str
    type_label: str
    size: int
    modified_ms: int
    score: float
    ranks: tuple[ListRank, ...]
    kind: SegmentKind | None  # None: the name itself
    seq: int | None
    page: int | None = None
    char_start: int | None = None
    char_end: int | None = None
    t0_ms: int | None = None
    t1_ms: int | None = None
    snippet: str = ""
    #: (start, end) character offsets in `snippet` of the words that matched.
    highlights: tuple[tuple[int, int], ...] = ()
    #: False where the file's root is offline: the hit is remembered, the file cannot be opened now.
    online: bool = True
    #: True where no word of the question is known, and this is no nearer than meaningless words are.
    is_weak: bool = False
    #: Other assets with the very same bytes.
    same_content: tuple[bytes, ...] = ()
