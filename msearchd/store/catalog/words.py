"""Ranks segments by their words: bm25 over FTS5, those with all words first.

In: a question and a scope. Out: ranked segments of visible files. Runs on a reader.

Segments with the words side by side come first, then those with all of them, then those with some. Where the matches are
few, bm25 orders them. It costs 1.2 us a matching row and 0.08 us for every row of every word asked, while a mere match
costs 0.04 us: so where they are many, it orders the newest few hundred with all words, and those with some are ordered by the
weight of the rarest words in them. A filter turns these budgets off: it must lose nothing.
"""

from __future__ import annotations

import heapq
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from msearchd.domain.asset import ContentId
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.rows import CONTENT_SHIFT, RankedSegment, ids_of_content, place_of
from msearchd.store.catalog.scope import SQL, Scope, admitted_contents
from msearchd.store.catalog.segments import SQL as CONTENT_SQL

#: Rows that bm25 may order for one question: 1.2 us each.
_RANKED: Final = 500
#: Rows that may be looked at for single words: 0.15 us each.
_MATCHED: Final = 4000
#: bm25 first counts all rows of all words, 0.08 us each: above this it is not asked.
_DEAR: Final = 6000
#: Rows with some of the words that are worth having.
_ENOUGH: Final = 200
#: Segments of one file in the list: a book must not take all places.
_OF_ONE_FILE: Final = 4
_UNLIMITED: Final = -1
#: Rows read beyond those wanted: some are of hidden files, or too many of one file.
_SPARE: Final = 50

#: Segment id, bm25 (lower is better), whether it has all words.
_Row = tuple[int, float, bool]


class TermCounts:
    """How many segments have a word, counted up to a limit. Remembered: common words come again and cost most.

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
            count = int(c.execute(SQL["count_words"], (alone, _DEAR + 1)).fetchone()[0])
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
    if not scope.is_open:
        return _take(c, _within_scope(c, question, scope, counts), scope, limit)
    found = _take(c, _within_budget(c, question, counts), scope, limit)
    if len(found) < limit and _may_have_more(c, question, found):
        found = _take(c, _all_matches(c, question, counts), scope, limit)
    return found


def _take(c: sqlite3.Connection, rows: Iterable[_Row], scope: Scope, limit: int) -> list[RankedSegment]:
    """The first rows of visible files in the scope, a few of each file."""
    found: list[RankedSegment] = []
    of_file: Counter[int] = Counter()
    left = iter(rows if scope.contents is None else _of_contents(rows, scope.contents))
    while some := list(islice(left, limit + _SPARE)):
        admitted = admitted_contents(c, {ContentId(row[0] >> CONTENT_SHIFT) for row in some}, scope)
        for id_, rank, is_full in some:
            content, kind, seq = place_of(id_)
            if content in admitted and of_file[content] < _OF_ONE_FILE:
                of_file[content] += 1
                found.append(RankedSegment(content, kind, seq, -rank, is_full))
                if len(found) >= limit:
                    return found
    return found


def _of_contents(rows: Iterable[_Row], contents: Collection[ContentId]) -> Iterator[_Row]:
    return (row for row in rows if row[0] >> CONTENT_SHIFT in contents)


# -- rows, best first ---------------------------------------------------------------------------------------------------


def _all_rows(c: sqlite3.Connection, question: Question) -> Iterator[_Row]:
    """Every segment with any of the words. For filters: what is left of it cannot be known before."""
    rows = c.execute(SQL["words"], (question.any_word() or question.all_words(), _UNLIMITED))
    return _in_tiers(c, question, rows, _UNLIMITED)


def _within_scope(c: sqlite3.Connection, question: Question, scope: Scope, counts: TermCounts) -> Iterator[_Row]:
    """Every segment of the scope with any of the words, in the cheapest way. A filter loses nothing."""
    if scope.contents is not None:
        match, contents = question.any_word() or question.all_words(), json.dumps(sorted(scope.contents))
        # Sorted here: asked to sort, FTS5 ranks every match before it looks at the contents.
        rows = sorted(c.execute(SQL["words_of_contents"], (match, CONTENT_SHIFT, contents)), key=lambda row: row[1])
        yield from _in_tiers(c, question, rows, _UNLIMITED)
    elif sum(counts.of(c, question.terms).values()) <= _RANKED:
        yield from _all_rows(c, question)
    else:
        yield from _all_matches(c, question, counts)


def _all_matches(c: sqlite3.Connection, question: Question, counts: TermCounts) -> Iterator[_Row]:
    """Every segment with any of the words: those with all of them, with telling ones, with any. Nothing is ranked by
    bm25, and a tier is looked for when the ones before it were not enough.
    """
    if not question.terms:
        yield from _all_rows(c, question)
        return
    full, side_by_side = _sets(c, question, _UNLIMITED)
    if full is None:
        full = {id_ for (id_,) in c.execute(SQL["words_anywhere"], (question.all_words(), _UNLIMITED))}
    yield from ((id_, 0.0, True) for id_ in sorted(side_by_side, reverse=True))
    yield from ((id_, 0.0, True) for id_ in sorted(full - side_by_side, reverse=True))
    there = counts.of(c, question.terms)
    seen = full
    for terms in (telling(question, there), tuple(term for term in question.terms if there[term])):
        scores = _weights(c, question, terms, there)
        order = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
        yield from ((id_, -score, False) for id_, score in order if id_ not in seen)
        seen = seen | scores.keys()


def _within_budget(c: sqlite3.Connection, question: Question, counts: TermCounts) -> Iterator[_Row]:
    """Segments with all words, then with the telling ones, as many as the budgets allow."""
    there = counts.of(c, question.terms)
    if len(question.terms) > 1 and sum(there.values()) <= _RANKED:
        yield from _all_rows(c, question)
        return
    full = list(_with_all_words(c, question, sum(there.values())))
    yield from full
    if len(question.terms) > 1 and len(full) < _ENOUGH:
        seen = {row[0] for row in full}
        some = _with_telling_words(c, question, there) or _with_all_but_one(c, question)
        yield from ((id_, -score, False) for id_, score in some if id_ not in seen)


def _with_all_words(c: sqlite3.Connection, question: Question, matching: int) -> Iterator[_Row]:
    """Those side by side first. Ranked where that is cheap: few rows (else the newest), of words that are not too common."""
    match = question.all_words()
    rows: Iterable[tuple[int, float]]
    if matching <= _DEAR:
        first = c.execute(SQL["newest_words"], (match, _RANKED)).fetchone()
        rows = c.execute(SQL["words_from"], (match, 0 if first is None else first[0]))
    else:
        rows = ((id_, 0.0) for (id_,) in c.execute(SQL["words_newest_first"], (match, _ENOUGH)))
    return _in_tiers(c, question, rows, _ENOUGH)


def _with_telling_words(c: sqlite3.Connection, question: Question, counts: dict[str, int]) -> list[tuple[int, float]]:
    """Segments by the weight of the rarest words in them. Passages are cut to one length, so that is most of bm25."""
    scores = _weights(c, question, telling(question, counts), counts)
    return heapq.nlargest(_ENOUGH, scores.items(), key=lambda item: (item[1], item[0]))


def _weights(
    c: sqlite3.Connection, question: Question, terms: Collection[str], counts: dict[str, int]
) -> dict[int, float]:
    """Segments with any of the terms: the sum of the weights of those that they have."""
    total = max(1, sum(counts.values()))
    scores: dict[int, float] = {}
    for term in terms:
        weight = math.log(1 + total / counts[term])
        match = replace(question, terms=(term,)).all_words()
        for (id_,) in c.execute(SQL["words_anywhere"], (match, _UNLIMITED)):
            scores[id_] = scores.get(id_, 0.0) + weight
    return scores


def _with_all_but_one(c: sqlite3.Connection, question: Question) -> list[tuple[int, float]]:
    """The newest segments that lack one word at most: for questions of common words alone."""
    some = (tuple(term for term in question.terms if term != left_out) for left_out in question.terms)
    match = " OR ".join(f"({replace(question, terms=terms).all_words()})" for terms in some)
    return [(id_, 0.0) for (id_,) in c.execute(SQL["words_newest_first"], (match, _ENOUGH))]


def _in_tiers(
    c: sqlite3.Connection, question: Question, rows: Iterable[tuple[int, float]], limit: int
) -> Iterator[_Row]:
    """Ranked rows, those with the words side by side in front, then those with all of them."""
    full, side_by_side = _sets(c, question, limit)
    first, second, third = [], [], []
    for row in rows:
        if row[0] in side_by_side:
            first.append(row)
        elif full is None or row[0] in full:
            second.append(row)
        else:
            third.append(row)
    for tier, is_full in ((first, True), (second, True), (third, False)):
        yield from ((id_, rank, is_full) for id_, rank in tier)


def _sets(c: sqlite3.Connection, question: Question, limit: int) -> tuple[set[int] | None, set[int]]:
    """Segments with all words (None: whatever matches has them), and with all of them side by side."""
    phrase = question.as_phrase()
    if not phrase:
        return None, set()
    full = {id_ for (id_,) in c.execute(SQL["words_anywhere"], (question.all_words(), limit))}
    return full, {id_ for (id_,) in c.execute(SQL["words_anywhere"], (phrase, limit))} if full else set()


def telling(question: Question, counts: dict[str, int]) -> tuple[str, ...]:
    """The rarest terms, as many as the budget of matches allows; () where every one is common."""
    rare: list[str] = []
    left = _MATCHED
    for term in sorted((term for term in question.terms if counts[term]), key=lambda term: counts[term]):
        left -= counts[term]
        if left >= 0:
            rare.append(term)
    return tuple(rare)


def _may_have_more(c: sqlite3.Connection, question: Question, found: list[RankedSegment]) -> bool:
    """True if hidden files may have taken the places: more match than were found."""
    n = c.execute(SQL["count_words"], (question.all_words(), _ENOUGH)).fetchone()[0]
    return int(n) > len(found)


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
