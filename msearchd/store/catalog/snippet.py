"""The piece of a segment that a person sees, with the words that matched marked in it.

In: texts and an FTS5 expression. Out: (piece, highlights). FTS5 itself says what matched, in a table in memory with the
tokenizer of the index, so that "ferries" is marked for "ferry" and nothing is marked that did not match.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from msearchd.store.catalog import fold

#: About three lines in a terminal.
WIDTH: Final = 240
_OPEN, _CLOSE = "\x02", "\x03"
_MARKS: Final = re.compile("[\x02\x03]")
_SENTENCE_END: Final = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]\s*|\n\s*\n|\n(?=[#*-])")
Span = tuple[int, int]
Snippet = tuple[str, tuple[Span, ...]]


def snippets(texts: Sequence[str], match: str, words: Iterable[str], *, width: int = WIDTH) -> list[Snippet]:
    """The best piece of each text, at most *width* characters, and the marked (start, end) in it.

    *match* is what FTS5 is asked ("" marks nothing); *words* are searched as they are where it marks nothing: pieces of
    identifiers and unspaced scripts, which the index splits in its own way.
    """
    marked = spans_of(texts, match) if match else [[] for _ in texts]
    plain = [fold.fold(word) for word in words]
    return [
        cut(text, spans or _plain_spans(text, plain), width=width) for text, spans in zip(texts, marked, strict=True)
    ]


def spans_of(texts: Sequence[str], match: str) -> list[list[Span]]:
    """What *match* matches in each text: ascending (start, end), none overlapping."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as c:
        c.execute("CREATE VIRTUAL TABLE t USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2')")
        c.executemany(
            "INSERT INTO t (rowid, text) VALUES (?, ?)",
            [(i, _MARKS.sub(" ", text).replace("\x00", " ")) for i, text in enumerate(texts)],
        )
        marked = dict(
            c.execute("SELECT rowid, highlight(t, 0, char(2), char(3)) FROM t WHERE t MATCH ?", (match,)).fetchall()
        )
    return [_parse_marks(marked[i]) if i in marked else [] for i in range(len(texts))]


def _parse_marks(marked: str) -> list[Span]:
    spans: list[Span] = []
    at = start = 0
    for piece in re.split("([\x02\x03])", marked):
        if piece == _OPEN:
            start = at
        elif piece == _CLOSE:
            spans.append((start, at))
        else:
            at += len(piece)
    return spans


def _plain_spans(text: str, words: Sequence[str]) -> list[Span]:
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters grow when lowered; then offsets would lie
        return []
    found = {(hit.start(), hit.end()) for word in words if word for hit in re.finditer(re.escape(word), lowered)}
    spans: list[Span] = []
    for start, end in sorted(found):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return spans


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
    for i, (start, _) in enumerate(spans):
        inside = [text[s:e].lower() for s, e in spans[i:] if e <= start + width]
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
