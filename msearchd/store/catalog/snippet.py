"""The piece of a segment that a person sees, with the words that matched marked in it.

In: texts and a question. Out: (piece, highlights). Pure. Words are cut and stemmed as the index does it, so that "ferries"
is marked for "ferry" and nothing is marked that did not match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from msearchd.store.catalog import fold
from msearchd.store.catalog.porter import stem
from msearchd.store.catalog.question import Question

#: About three lines in a terminal.
WIDTH: Final = 240
#: A window is chosen by its first marks: a passage of one word repeated is the same everywhere.
_MARKS_LOOKED_AT: Final = 40
_TOKEN: Final = re.compile(r"[^\W_]+")
_SENTENCE_END: Final = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]\s*|\n\s*\n|\n(?=[#*-])")
Span = tuple[int, int]
Snippet = tuple[str, tuple[Span, ...]]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be marked: stems, runs of stems side by side, and what is looked for as it stands."""

    stems: frozenset[str]
    runs: tuple[tuple[str, ...], ...]
    plain: tuple[str, ...]
    #: Words of an ASCII text that may have one of the stems: porter changes no first letter, and a second only y to i.
    likely: re.Pattern[str] | None

    @classmethod
    def of(cls, question: Question) -> _Wanted:
        asked = [*question.terms, *question.phrases]
        runs = [tuple(stem(word) for word, _, _ in _tokens(part)) for part in asked]
        stems = frozenset(run[0] for run in runs if len(run) == 1)
        starts = sorted({re.escape(one[:1]) + one[1:2].replace("i", "[iy]") for one in stems if one.isascii()})
        return cls(
            stems=stems,
            runs=tuple(run for run in runs if len(run) > 1),
            plain=tuple(filter(None, map(fold.fold, asked))),
            likely=re.compile(f"(?<![^\\W_])(?:{'|'.join(starts)})[^\\W_]*", re.IGNORECASE | re.ASCII)
            if starts
            else None,
        )


def snippets(texts: Sequence[str], question: Question, *, width: int = WIDTH) -> list[Snippet]:
    """The best piece of each text, at most *width* characters, and the marked (start, end) in it.

    Where no word matches, the question's words are looked for as they stand: pieces of identifiers and unspaced scripts,
    which the index cuts in its own way.
    """
    wanted = _Wanted.of(question)
    return [cut(text, _word_spans(text, wanted) or _plain_spans(text, wanted.plain), width=width) for text in texts]


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Words as unicode61 cuts them: folded, with where they are."""
    for hit in _TOKEN.finditer(text):
        yield fold.fold(hit[0]), hit.start(), hit.end()


def _word_spans(text: str, wanted: _Wanted) -> list[Span]:
    """Where words or runs of words of the question are: ascending, none overlapping."""
    if not wanted.runs and text.isascii():
        if wanted.likely is None:
            return []
        return [hit.span() for hit in wanted.likely.finditer(text) if stem(hit[0].lower()) in wanted.stems]
    words = [(stem(word), start, end) for word, start, end in _tokens(text)]
    spans = [(start, end) for word, start, end in words if word in wanted.stems]
    for run in wanted.runs:
        starts = (at for at, word in enumerate(words) if word[0] == run[0])
        found = (words[at : at + len(run)] for at in starts)
        spans += [(some[0][1], some[-1][2]) for some in found if tuple(word for word, _, _ in some) == run]
    return _apart(spans)


def _apart(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in sorted(spans):
        if not found or start >= found[-1][1]:
            found.append((start, end))
    return found


def _plain_spans(text: str, words: Sequence[str]) -> list[Span]:
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered; then offsets would lie
        return []
    return _apart(hit.span() for word in words for hit in re.finditer(re.escape(word), lowered))


def cut(text: str, spans: Sequence[Span], *, width: int = WIDTH) -> Snippet:
    """The window of *text* with the most marks, begun at a sentence where one begins near by, cut at spaces.

    Line breaks become spaces, one for one, so that offsets stay true.
    """
    start = _window_start(text, spans, width)
    end = min(len(text), start + width)
    if end < len(text):
        space = text.rfind(" ", start + width // 2, end)
        end = space if space > 0 else end
    piece = re.sub(r"\s", " ", text[start:end])
    lead = len(piece) - len(piece.lstrip())
    piece = piece.strip()
    shift = start + lead
    inside = ((max(s - shift, 0), min(e - shift, len(piece))) for s, e in spans if s < shift + len(piece) and e > shift)
    return piece, tuple(span for span in inside if span[0] < span[1])


def _window_start(text: str, spans: Sequence[Span], width: int) -> int:
    if not spans or len(text) <= width:
        return 0
    best, most = spans[0][0], (0, 0)
    marks = [(start, end, text[start:end].lower()) for start, end in spans[:_MARKS_LOOKED_AT]]
    for i, (start, _, _) in enumerate(marks):
        inside = [word for _, end, word in marks[i:] if end <= start + width]
        worth = (len(set(inside)), len(inside))  # two words that were asked for say more than one twice
        if worth > most:
            best, most = start, worth
    # Begin with the sentence that holds the first mark, or with a word a little before it.
    earliest = max(0, best - width // 3)
    begins = [hit.end() for hit in _SENTENCE_END.finditer(text, earliest, best)]
    if begins:
        return begins[-1]
    if earliest == 0:
        return 0
    space = text.find(" ", earliest, best)
    return space + 1 if space >= 0 else earliest
