"""Ranks segments by their words: bm25 over FTS5, those with all words first.

In: a question and a scope. Out: ranked segments of visible files. Runs on a reader.

First the segments with all words, those that have them side by side in front; then, while there is room, segments with
any of the telling words. bm25 costs about 2 us a matching row, and a word that thousands of segments have says little: the
second tier takes the rarest words, as many as a budget of rows allows.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final

from msearchd.domain.asset import ContentId
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.rows import CONTENT_SHIFT, RankedSegment, ids_of_content, place_of
from msearchd.store.catalog.scope import SQL, Scope, admitted_contents
from msearchd.store.catalog.segments import SQL as CONTENT_SQL

#: Rows ranked for segments with some of the words: about 3 ms.
_BUDGET: Final = 1500
#: Segments of one file in the list: a book must not take all places.
_OF_ONE_FILE: Final = 4
_UNLIMITED: Final = -1
#: Rows read beyond those wanted: some are of hidden files, or too many of one file.
_SPARE: Final = 50

_Row = tuple[int, float]


class TermCounts:
    """How many segments have a word, counted no further than the budget. Remembered: common words come again and cost most.

    May be off by what was indexed since, at most a tenth of all segments; it steers cost, never what is found first.
    """

    _MOST: Final = 5000

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}  # word: count, segments at that time

    def of(self, c: sqlite3.Connection, terms: Iterable[str]) -> dict[str, int]:
        """The counts of *terms*."""
        total = dict(c.execute(CONTENT_SQL["totals"]).fetchall())["segments"]
        return {term: self._of(c, term, total) for term in terms}

    def _of(self, c: sqlite3.Connection, term: str, total: int) -> int:
        count, then = self._counts.get(term, (0, -1))
        if then < 0 or abs(total - then) > then // 10:
            alone = Question(terms=(term,)).all_words()
            count = int(c.execute(SQL["count_words"], (alone, _BUDGET)).fetchone()[0])
            if len(self._counts) >= self._MOST:
                self._counts.clear()
            self._counts[term] = (count, total)
        return count


def ranked(
    c: sqlite3.Connection, question: Question, scope: Scope, counts: TermCounts, *, limit: int
) -> list[RankedSegment]:
    """At most *limit* segments, best first; [] for an empty question. Only visible files in the scope."""
    if question.is_empty:
        return []
    found: dict[int, RankedSegment] = {}
    of_file: Counter[ContentId] = Counter()
    for is_full, rows in ((True, _with_all_words), (False, _with_some_words)):
        for id_, score in rows(c, question, scope, counts, limit):
            if len(found) >= limit:
                return list(found.values())
            content, kind, seq = place_of(id_)
            if id_ not in found and of_file[content] < _OF_ONE_FILE:
                of_file[content] += 1
                found[id_] = RankedSegment(content, kind, seq, score, is_full)
    return list(found.values())


def _with_all_words(
    c: sqlite3.Connection, question: Question, scope: Scope, _: TermCounts, limit: int
) -> Iterator[_Row]:
    phrase = question.as_phrase()
    if not phrase:
        yield from _admitted(c, question.all_words(), scope, limit)
        return
    rows = c.execute(SQL["words"], (question.all_words(), limit)).fetchall()
    if len(rows) == limit:  # the best by bm25 alone need not have the words side by side
        yield from _admitted(c, phrase, scope, limit)
    elif rows:
        side_by_side = {id_ for (id_,) in c.execute(SQL["words_anywhere"], (phrase, limit))}
        rows.sort(key=lambda row: row[0] not in side_by_side)
        yield from _admitted_of(c, rows, scope)
        return
    if rows:
        yield from _admitted(c, question.all_words(), scope, limit)


def _with_some_words(c: sqlite3.Connection, question: Question, scope: Scope, counts: TermCounts,
                     limit: int) -> Iterator[_Row]:  # fmt: skip
    if len(question.terms) < 2:
        return
    if match := telling(question, counts.of(c, question.terms)):
        yield from _admitted(c, match, scope, limit)


def telling(question: Question, counts: dict[str, int]) -> str:
    """Any of the rarest terms that the budget allows. Where all are common: all but one of them, or the rarer of two."""
    there = sorted((term for term in question.terms if counts[term]), key=lambda term: counts[term])
    rare: list[str] = []
    left = _BUDGET
    for term in there:
        left -= counts[term]
        if left > 0:
            rare.append(term)
    if rare:
        return _any_of(question, rare)
    if len(there) < 3:
        return _any_of(question, there[:1])
    leave_one_out = (tuple(term for term in there if term != left_out) for left_out in there)
    return " OR ".join(f"({replace(question, terms=terms).all_words()})" for terms in leave_one_out)


def _any_of(question: Question, terms: Collection[str]) -> str:
    if not terms:
        return ""
    some = replace(question, terms=tuple(terms))
    return some.any_word() or some.all_words()


def _admitted(c: sqlite3.Connection, match: str, scope: Scope, limit: int) -> Iterator[_Row]:
    """Matches in admitted contents, best first. Reads on as long as it is asked, so that a filter loses nothing."""
    if scope.contents is not None:
        yield from _of_admitted(c, c.execute(SQL["words"], (match, _UNLIMITED)), scope)
        return
    first = limit + _SPARE
    rows = c.execute(SQL["words"], (match, first)).fetchall()
    yield from _of_admitted(c, rows, scope)
    if len(rows) == first:
        # Hidden or filtered files took the places: read all the rest. Rare, so it is asked again from the start.
        yield from _of_admitted(c, c.execute(SQL["words"], (match, _UNLIMITED)), scope, skip=first)


def _of_admitted(c: sqlite3.Connection, rows: Iterable[_Row], scope: Scope, *, skip: int = 0,
                 chunk: int = 500) -> Iterator[_Row]:  # fmt: skip
    batch: list[_Row] = []
    for i, row in enumerate(rows):
        if i < skip or (scope.contents is not None and row[0] >> CONTENT_SHIFT not in scope.contents):
            continue
        batch.append(row)
        if len(batch) >= chunk:
            yield from _admitted_of(c, batch, scope)
            batch = []
    yield from _admitted_of(c, batch, scope)


def _admitted_of(c: sqlite3.Connection, batch: list[_Row], scope: Scope) -> Iterator[_Row]:
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
