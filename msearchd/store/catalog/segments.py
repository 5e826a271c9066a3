"""Segments of a content and their words: the only writer of `segment` and `segment_words`.

In: an extraction. Out: rows that differ from what is there, and nothing else, so writing it twice changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Final

from msearchd import errors
from msearchd.aio.sqlite import named_queries
from msearchd.domain.asset import ContentId
from msearchd.domain.media import Segment, SegmentKind
from msearchd.store.catalog import fold
from msearchd.store.catalog.rows import ids_of_content, ids_of_kind, kind_of, place_of, segment_id, segment_of

SQL: Final = named_queries("msearchd.store.sql", "contents.sql")

_Row = tuple[str, int | None, int | None, int | None, int | None, int | None]


def replace_segments(
    c: sqlite3.Connection, content: ContentId, segments: Iterable[Segment], kinds: Collection[SegmentKind]
) -> frozenset[SegmentKind]:
    """Make *segments* all there is of *kinds*; return the kinds of what changed. Raises Bug for a (kind, seq) twice."""
    wanted: dict[int, _Row] = {}
    for segment in segments:
        id_ = segment_id(content, segment.kind, segment.seq)
        if id_ in wanted:
            message = f"two segments are {segment.kind} {segment.seq}"
            raise errors.Bug(message)
        wanted[id_] = _columns(segment)
    have: dict[int, _Row] = {}
    for kind in sorted({*kinds, *(place_of(id_)[1] for id_ in wanted)}):
        have |= {id_: tuple(row) for id_, *row in c.execute(SQL["segments_between"], ids_of_kind(content, kind))}
    stale = {id_: row for id_, row in have.items() if wanted.get(id_) != row}
    fresh = {id_: row for id_, row in wanted.items() if have.get(id_) != row}
    _delete(c, stale)
    _insert(c, fresh)
    if stale or fresh:
        c.execute(SQL["count_texts"], (content, *ids_of_content(content)))
    return frozenset(place_of(id_)[1] for id_ in {**stale, **fresh})


def delete_all(c: sqlite3.Connection, content: ContentId) -> None:
    """Delete all segments of a content, and their words."""
    between = ids_of_content(content)
    texts = c.execute(SQL["texts_between"], between).fetchall()
    c.executemany(SQL["delete_words"], [(id_, *fold.index_columns(text)) for id_, text in texts])
    c.execute(SQL["delete_segments"], between)


def segments(c: sqlite3.Connection, content: ContentId) -> list[Segment]:
    """All segments, by kind and place."""
    return [segment_of(*row) for row in c.execute(SQL["segments_between"], ids_of_content(content))]


def counts_by_kind(c: sqlite3.Connection, content: ContentId) -> dict[SegmentKind, int]:
    """Segments with text, by where their text comes from."""
    found = c.execute(SQL["kinds_of_content"], ids_of_content(content))
    return {kind_of(code): n for code, n in found}


def _columns(segment: Segment) -> _Row:
    # A lone surrogate (a decoder's mistake) cannot be stored as UTF-8; NUL would end the text for some readers.
    text = segment.text.encode("utf-8", "replace").decode("utf-8").replace("\x00", " ")
    return text, segment.char_start, segment.char_end, segment.page, segment.t0_ms, segment.t1_ms


def _delete(c: sqlite3.Connection, rows: dict[int, _Row]) -> None:
    words = [(id_, *fold.index_columns(row[0])) for id_, row in rows.items() if row[0]]
    c.executemany(SQL["delete_words"], words)
    c.executemany(SQL["delete_segment"], [(id_,) for id_ in rows])


def _insert(c: sqlite3.Connection, rows: dict[int, _Row]) -> None:
    c.executemany(SQL["put_segment"], [(id_, *row) for id_, row in rows.items()])
    words = [(id_, *fold.index_columns(row[0])) for id_, row in rows.items() if row[0]]
    c.executemany(SQL["put_words"], words)
