"""What a search answers: hits, how each list fared, what is missing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from msearchd.control.types import INTEGRAL, Count, Int, PathText, Reply, Text, TimeMs


class HitRank(Reply):
    """Where one list put the hit: rank from 1 and the list's own score (not comparable between lists)."""

    list: Annotated[
        Text, Field(description='"words", "names", "learned words" (of a sparse model), or a vector space.')
    ]
    rank: Annotated[int, Field(ge=1), INTEGRAL]
    score: float


class HitReply(Reply):
    """A file that answers the question, at its best place."""

    path: PathText
    modality: Text
    mime: Text
    type_label: Text
    size_bytes: Count
    modified_ms: TimeMs
    score: float
    ranks: list[HitRank]
    kind: Annotated[Text | None, Field(description="Where the text comes from; null: the name itself.")] = None
    page: Int | None = None
    line: Int | None = None
    char_start: Int | None = None
    char_end: Int | None = None
    t0_ms: Int | None = None
    t1_ms: Int | None = None
    snippet: Text = ""
    #: Character ranges (start, end) in `snippet`.
    highlights: list[tuple[Int, Int]] = Field(default_factory=list)
    is_online: Annotated[bool, Field(description="False: the folder is offline, the file cannot be opened now.")] = True
    is_weak: Annotated[
        bool, Field(description="No word of the question is known, and this is no nearer to it than chance.")
    ] = False
    same_content: Annotated[list[PathText], Field(description="Other files with these bytes.")] = Field(
        default_factory=list
    )


class ListReply(Reply):
    """One ranked list's part in the answer."""

    list: Text
    candidates: Count
    took_ms: float
    error: Annotated[Text, Field(description="Why this list did not answer; empty if it did.")] = ""


class SearchReply(Reply):
    """Hits, best first."""

    hits: list[HitReply]
    took_ms: float
    lists: list[ListReply] = Field(default_factory=list)
    missing: Annotated[list[Text], Field(description="What this answer lacks, in sentences.")] = Field(
        default_factory=list
    )
    retry_after_s: Annotated[
        float | None, Field(description="A model still loads: asked again after this there is more. null: this is all.")
    ] = None
