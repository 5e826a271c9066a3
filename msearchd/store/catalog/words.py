"""Ranks segments by their words: bm25 over FTS5, those with all words first.

In: a question and a scope. Out: ranked segments of visible files. Runs on a reader.

Three tiers, each asked only while the ones before left room: the words side by side, all of them anywhere, any of them.
A word that thousands of segments have says little and costs much, so the last tier asks for the telling words alone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from msearchd.domain.asset import ContentId
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.rows import CONTENT_SHIFT, RankedSegment, ids_of_content, place_of
from msearchd.store.catalog.scope import SQL, Scope, admitted_contents

#: A word in more segments than this is common: 2,000 ranked rows cost about 5 ms.
_COMMON: Final = 2000
#: Segments of one file in the list: a book must not take all places.
_OF_ONE_FILE: Final = 4
_UNLIMITED: Final = -1
#: Rows read beyond those wanted: some are of hidden files, or too many of one file.
_SPARE: Final = 50


def ranked(c: sqlite3.Connection, question: Question, scope: Scope, *, limit: int) -> list[RankedSegment]:
    """At most *limit* segments, best first; [] for an empty question. Only visible files in the scope."""
    found: dict[int, RankedSegment] = {}
    of_file: Counter[ContentId] = Counter()
    for match, is_full in _tiers(c, question):
        for id_, score in _admitted(c, match, scope, room=limit - len(found), seen=found):
            content, kind, seq = place_of(id_)
            if id_ in found or of_file[content] >= _OF_ONE_FILE:
                continue
            of_file[content] += 1
            found[id_] = RankedSegment(content, kind, seq, score, is_full)
            if len(found) >= limit:
                return list(found.values())
    return list(found.values())


def _tiers(c: sqlite3.Connection, question: Question) -> Iterator[tuple[str, bool]]:
    """(expression, has all words), best first; the caller stops when it has enough."""
    if question.is_empty:
        return
    if phrase := question.as_phrase():
        yield phrase, True
    yield question.all_words(), True
    if any_telling := telling(c, question).any_word_or_only():
        yield any_telling, False


def telling(c: sqlite3.Connection, question: Question) -> Telling:
    """How often each term of the question is there, counted no further than `_COMMON`."""
    counts = {}
    if len(question.terms) > 1:
        for term in question.terms:
            alone = Question(terms=(term,)).all_words()
            counts[term] = int(c.execute(SQL["count_words"], (alone, _COMMON)).fetchone()[0])
    return Telling(question, counts)


class Telling:
    """A question with the number of segments that have each of its terms."""

    def __init__(self, question: Question, counts: dict[str, int]) -> None:
        self._question = question
        self._counts = counts

    def any_word_or_only(self) -> str:
        """Any of the rare terms. Where all are common: all but one of them, or the rarer of two. "" for one term."""
        there = [term for term, n in self._counts.items() if n]
        rare = tuple(term for term in there if self._counts[term] < _COMMON)
        if len(self._counts) < 2 or not there:
            return ""
        if rare:
            return _any_of(replace(self._question, terms=rare))
        if len(there) < 3:
            return _any_of(replace(self._question, terms=(min(there, key=lambda term: self._counts[term]),)))
        leave_one_out = (
            replace(self._question, terms=tuple(term for term in there if term != left)).all_words() for left in there
        )
        return " OR ".join(f"({expression})" for expression in leave_one_out)


def _any_of(question: Question) -> str:
    return question.any_word() or question.all_words()


def _admitted(
    c: sqlite3.Connection, match: str, scope: Scope, *, room: int, seen: Collection[int]
) -> Iterator[tuple[int, float]]:
    """Matches in admitted contents, best first. Reads on as long as it is asked, so that a filter loses nothing."""
    first = room + len(seen) + _SPARE
    rows = c.execute(SQL["words"], (match, _UNLIMITED if scope.contents is not None else first)).fetchall()
    yield from _of_admitted(c, rows, scope)
    if scope.contents is None and len(rows) == first:
        # Hidden or filtered files took the places: read all the rest. Rare, so it is asked again from the start.
        yield from _of_admitted(c, c.execute(SQL["words"], (match, _UNLIMITED)), scope, skip=first)


def _of_admitted(
    c: sqlite3.Connection,
    rows: Collection[tuple[int, float]] | sqlite3.Cursor,
    scope: Scope,
    *,
    skip: int = 0,
    chunk: int = 500,
) -> Iterator[tuple[int, float]]:
    batch: list[tuple[int, float]] = []
    for i, row in enumerate(rows):
        if i < skip or (scope.contents is not None and row[0] >> CONTENT_SHIFT not in scope.contents):
            continue
        batch.append(row)
        if len(batch) >= chunk:
            yield from _admitted_of(c, batch, scope)
            batch = []
    yield from _admitted_of(c, batch, scope)


def _admitted_of(c: sqlite3.Connection, batch: list[tuple[int, float]], scope: Scope) -> Iterator[tuple[int, float]]:
    contents = admitted_contents(c, {ContentId(id_ >> CONTENT_SHIFT) for id_, _ in batch}, scope)
    return ((id_, -rank) for id_, rank in batch if id_ >> CONTENT_SHIFT in contents)


def satisfying(c: sqlite3.Connection, question: Question, contents: Collection[ContentId]) -> set[ContentId]:
    """Those of *contents* that have every phrase and nothing that is excluded, wherever in the file.

    For files that other lists found: a nearness in meaning does not undo what was asked for in words.
    """
    if not question.is_strict:
        return set(contents)
    needed = [Question(phrases=(phrase,)).required() for phrase in question.phrases]
    forbidden = question.forbidden()
    return {
        content
        for content in contents
        if all(_has(c, content, match) for match in needed) and not (forbidden and _has(c, content, forbidden))
    }


def _has(c: sqlite3.Connection, content: ContentId, match: str) -> bool:
    return c.execute(SQL["words_between"], (match, *ids_of_content(content), 1)).fetchone() is not None
