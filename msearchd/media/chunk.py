"""Cut a text into passages that a model can embed and a person can read. Pure.

In: a text, its structure, where its pages begin, a length limit. Out: passages as offsets into that very text.
Never longer than the limit, never empty, never across a page, and every visible character lies in at least one passage.

    headings | definitions  >  blank lines  >  lines, sentences  >  words  >  anywhere
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from msearchd.media.registry import Structure

#: Part of every vector space's fingerprint: change it when the same text would be cut differently.
CHUNKING_VERSION: Final = "passages-1"


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in the text: `text[start:end]` begins and ends with a visible character. Pages count from 1."""

    start: int
    end: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class ChunkRules:
    """How long passages may be. An overlap beyond half of the length is taken as half."""

    max_chars: int = 800
    overlap_chars: int = 100

    def fingerprint(self) -> str:
        """Names the cutting: equal fingerprints cut equal texts equally."""
        return f"{CHUNKING_VERSION}:{self.max_chars}:{self.overlap}"

    @property
    def overlap(self) -> int:
        """Characters that neighbours share where a paragraph had to be cut."""
        return min(self.overlap_chars, self.max_chars // 2)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A kind of place to cut at: the end of a match. Not used where it would leave a passage shorter than `fill` of
    the limit.
    """

    pattern: re.Pattern[str]
    fill: float
    is_inside: bool  # it lies inside a paragraph: the next passage repeats a little


_DEFINITION: Final = (
    r"(?:(?:export|default|pub(?:\([a-z]+\))?|async|static|public|private|protected|abstract|final|"
    r"internal|inline|unsafe|extern)\s+)*(?:def|class|function|func|fn|fun|impl|struct|enum|interface|"
    r"trait|module|namespace|package|sub|procedure|CREATE|ALTER|INSERT)\b|@\w|#\[|#+ |/\*\*"
)
_HEADING: Final = _Cut(re.compile(r"\n(?=#{1,6} |<h[1-6])"), 0.3, is_inside=False)
_TOP_DEFINITION: Final = _Cut(re.compile(rf"\n[ \t]*\n+(?={_DEFINITION})"), 0.3, is_inside=False)
_INNER_DEFINITION: Final = _Cut(re.compile(rf"\n[ \t]*\n(?=[ \t]+(?:{_DEFINITION}))"), 0.5, is_inside=False)
_BLANK_LINE: Final = _Cut(re.compile(r"\n[ \t]*\n\s*"), 0.5, is_inside=False)
# A full stop before a small letter is an abbreviation more often than an end.
_SENTENCE: Final = _Cut(re.compile(r"""[.!?…]["'”’»)\]]*\s+(?=[^\sa-z])|[。！？]["'」』）]*\s*"""), 0.5, is_inside=True)  # noqa: RUF001
_LINE: Final = _Cut(re.compile(r"\n"), 0.5, is_inside=True)
_CLAUSE: Final = _Cut(re.compile(r"[,;:、，]\s*"), 0.7, is_inside=True)  # noqa: RUF001
_WORD: Final = _Cut(re.compile(r"\s+"), 0.3, is_inside=True)

_CUTS: Final[dict[Structure, tuple[_Cut, ...]]] = {
    Structure.PROSE: (_BLANK_LINE, _SENTENCE, _LINE, _CLAUSE, _WORD),
    Structure.MARKDOWN: (_HEADING, _BLANK_LINE, _SENTENCE, _LINE, _CLAUSE, _WORD),
    Structure.CODE: (_TOP_DEFINITION, _INNER_DEFINITION, _BLANK_LINE, _LINE, _WORD),
    Structure.ROWS: (_BLANK_LINE, _LINE, _CLAUSE, _WORD),
}
_VISIBLE: Final = re.compile(r"\S")
#: Longest look-ahead of the patterns above that matters at the end of a window.
_LOOK_AHEAD: Final = 40


def split_text(
    text: str, *, rules: ChunkRules, structure: Structure = Structure.PROSE, page_starts: Sequence[tuple[int, int]] = ()
) -> Iterator[Passage]:
    """Yield the passages of *text* in order.

    *page_starts* are (offset, page number) in order; text before the first has no page. Time is linear in the text.
    """
    begins = [(0, None), *page_starts] if not page_starts or page_starts[0][0] > 0 else list(page_starts)
    ends = [offset for offset, _ in begins[1:]] + [len(text)]
    for (begin, page), end in zip(begins, ends, strict=True):
        for start, stop in _split_region(text, begin, end, rules=rules, cuts=_CUTS[structure]):
            yield Passage(start, stop, page)


def _split_region(
    text: str, begin: int, end: int, *, rules: ChunkRules, cuts: tuple[_Cut, ...]
) -> Iterator[tuple[int, int]]:
    start = covered = begin
    while (visible := _VISIBLE.search(text, start, end)) is not None:
        start = visible.start()
        if end - start <= rules.max_chars:
            yield start, _trimmed(text, start, end)
            return
        stop, is_inside = _choose(text, start, max(start, covered), end, limit=rules.max_chars, cuts=cuts)
        yield start, _trimmed(text, start, stop)
        covered = stop
        start = _overlap_start(text, start, stop, overlap=rules.overlap) if is_inside else stop


def _choose(text: str, start: int, covered: int, end: int, *, limit: int, cuts: tuple[_Cut, ...]) -> tuple[int, bool]:
    """Where to end the passage that begins at *start*: beyond *covered*, at most *limit* characters on."""
    rest = end - start
    # A little more than one passage is left: two of like length rather than a long one and a crumb.
    longest = start + (limit if rest > 1.5 * limit else max(limit * 2 // 3, -(-rest * 3 // 5)))
    longest = min(longest, start + limit)
    longest = max(longest, min(covered + 1, start + limit))
    for cut in cuts:
        shortest = max(covered + 1, start + int(limit * cut.fill))
        found = 0
        for match in cut.pattern.finditer(text, max(start, shortest - _LOOK_AHEAD), min(end, longest + _LOOK_AHEAD)):
            if match.end() > longest:
                break
            if match.end() >= shortest:
                found = match.end()
        if found:
            return found, cut.is_inside
    return _not_inside_a_character(text, max(longest, covered + 1), floor=covered + 1), True


def _overlap_start(text: str, start: int, stop: int, *, overlap: int) -> int:
    """Where the next passage begins so that it repeats up to *overlap* characters, from a sentence or a word on."""
    earliest = max(start + 1, stop - overlap)
    for pattern in (_SENTENCE.pattern, _WORD.pattern):
        for match in pattern.finditer(text, max(start, earliest - _LOOK_AHEAD), stop):
            if earliest <= match.end() < stop:
                return match.end()
    return stop


def _not_inside_a_character(text: str, place: int, *, floor: int) -> int:
    """Step back from before a combining mark, joiner or variation selector, at most 16 characters and never below
    *floor*.
    """
    for earlier in range(place, max(floor, place - 16) - 1, -1):
        if earlier >= len(text) or not _joins(text[earlier]):
            return earlier
    return place


def _joins(character: str) -> bool:
    return (
        character in "\u200d\ufe0e\ufe0f"
        or "\u0300" <= character <= "\u036f"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _trimmed(text: str, start: int, stop: int) -> int:
    while stop > start + 1 and text[stop - 1].isspace():
        stop -= 1
    return stop
