"""Turns one question into hits.

In: a `SearchQuery`. Out: a `SearchReply`. Asks all lists at once (words, names, meaning), leaves out and names those
that fail or are late, fuses ranks, joins with the catalog. Never changes anything; holds no state.

    question ─┬─ words ────┐
              ├─ names ────┼─ satisfying ─ fuse ─ show ─▶ hits
              └─ meaning ──┘
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from msearchd import errors
from msearchd.domain.asset import AssetId, ContentId
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.query import Hit, ListRank, SearchQuery
from msearchd.domain.space import Space, Vectors
from msearchd.search import fusion
from msearchd.search.meaning import Meaning
from msearchd.settings.model import SearchSettings
from msearchd.store.catalog import Catalog, ShownFile
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.resolve import Place, Wanted
from msearchd.store.catalog.scope import Scope
from msearchd.store.catalog.snippet import Snippet
from msearchd.store.vector_store import VectorStore

#: Embeds a question in the space that answers questions; None where search by meaning is switched off.
Embed = Callable[[str], Awaitable[tuple[Space, Vectors] | None]]

#: A passage that has every word asked for beats the nearest passage that lacks some; one with some of them counts less.
_ALL_WORDS, _SOME_WORDS = 1.5, 0.7


@dataclass(frozen=True, slots=True)
class ListReport:
    """One list's part in an answer. `error`: why it did not answer; empty if it did."""

    name: str
    candidates: int
    took_ms: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class SearchReply:
    """Hits, best first; how each list fared; what the answer lacks, in sentences."""

    hits: tuple[Hit, ...]
    took_ms: float
    lists: tuple[ListReport, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    report: ListReport
    entries: tuple[fusion.Entry, ...] = ()
    weight: float = 0.0
    #: Files that were ranked by name: which asset it was.
    assets: tuple[tuple[int, AssetId], ...] = ()


class SearchService:
    """Answers questions. Shared by all callers; each search is independent."""

    def __init__(self, catalog: Catalog, store: VectorStore, embed: Embed, settings: SearchSettings) -> None:
        self._catalog = catalog
        self._meaning = Meaning(catalog, store, embed, candidates=settings.candidates)
        self._settings = settings

    async def search(self, query: SearchQuery) -> SearchReply:
        """The best files for *query*, at most `query.limit`.

        Raises BadRequest for a question without words, a limit below 1, an unknown folder or an empty range; RetryLater
        where no list answered at all. Cancelled: nothing is left behind.
        """
        began = time.perf_counter()
        query = replace(
            query, text=query.text.encode("utf-8", "replace").decode("utf-8")
        )  # lone surrogates are no words
        question = _checked(query)
        scope = await self._catalog.scope(query.filters)
        answers = await self._ask_all(query, question, scope)
        failed = [answer.report for answer in answers if answer.report.error]
        if not answers:
            message = "every list has weight 0"
            raise errors.Misconfigured(message, key="search", hint="set one of search.weight_* above 0")
        if len(failed) == len(answers):
            message = "no list answered: " + "; ".join(report.error for report in failed)
            raise errors.RetryLater(message, after_s=1.0, hint="msearch status says what is wrong")
        hits = await self._hits(query, question, scope, answers)
        return SearchReply(
            hits=tuple(hits),
            took_ms=(time.perf_counter() - began) * 1000,
            lists=tuple(answer.report for answer in answers),
            missing=tuple(f"the list of {report.name} is missing: {report.error}" for report in failed),
        )

    # -- lists --------------------------------------------------------------------------------------------------------

    async def _ask_all(self, query: SearchQuery, question: Question, scope: Scope) -> list[_Answer]:
        weights = self._settings
        asked: list[tuple[str, float, Callable[[], Awaitable[_Answer]]]] = [
            ("words", weights.weight_words, lambda: self._words(question, scope)),
            ("names", weights.weight_names, lambda: self._names(query.text, scope)),
            ("meaning", weights.weight_meaning, lambda: self._near(query, question, scope)),
        ]
        return list(await asyncio.gather(*(self._in_time(name, ask) for name, weight, ask in asked if weight > 0)))

    async def _in_time(self, name: str, ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """The list's answer, or a report of why there is none."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.query_timeout_s):
                return await ask()
        except TimeoutError:
            reason = f"no answer within {self._settings.query_timeout_s:g} s"
        except errors.MsearchError as error:
            reason = error.sentence()
        return _Answer(ListReport(name, 0, (time.perf_counter() - began) * 1000, reason))

    async def _words(self, question: Question, scope: Scope) -> _Answer:
        began = time.perf_counter()
        found = await self._catalog.words(question, scope, limit=self._settings.candidates)
        entries = tuple(
            fusion.Entry(one.content, (one.kind, one.seq), one.score, _ALL_WORDS if one.is_full else _SOME_WORDS)
            for one in found
        )
        return _Answer(_report("words", entries, began), entries, self._settings.weight_words)

    async def _names(self, text: str, scope: Scope) -> _Answer:
        began = time.perf_counter()
        found = await self._catalog.names(text, scope, limit=self._settings.candidates)
        # The square: half of the question in a name is a quarter of a reason.
        entries = tuple(
            fusion.Entry(_file_key(one.content, one.asset), None, one.score, one.score**2, one.is_exact)
            for one in found
        )
        assets = tuple((entry.file, one.asset) for entry, one in zip(entries, found, strict=True))
        return _Answer(_report("names", entries, began), entries, self._settings.weight_names, assets)

    async def _near(self, query: SearchQuery, question: Question, scope: Scope) -> _Answer:
        began = time.perf_counter()
        near = await self._meaning.near(question.plain or query.text, scope, files=query.limit)
        if near is None:
            return _Answer(ListReport("meaning", 0, 0.0))  # switched off: nothing is missing
        space, found = near
        entries = tuple(fusion.Entry(one.content, (one.kind, one.seq), one.score) for one in found)
        return _Answer(_report(space, entries, began), entries, self._settings.weight_meaning)

    # -- hits ---------------------------------------------------------------------------------------------------------

    async def _hits(
        self, query: SearchQuery, question: Question, scope: Scope, answers: Sequence[_Answer]
    ) -> list[Hit]:
        answers = await self._satisfying(question, answers)
        lists = [fusion.RankedList(answer.report.name, answer.weight, answer.entries) for answer in answers]
        named: dict[int, AssetId] = {}
        for file, asset in (pair for answer in answers for pair in answer.assets):
            named.setdefault(file, asset)
        hits: list[Hit] = []
        shown, wanted = 0, query.limit
        while len(hits) < query.limit:
            fused = fusion.fuse(lists, k=self._settings.rrf_k, limit=wanted)
            hits += await self._show(fused[shown:], named, question, scope)
            if len(fused) < wanted:
                break  # else some went since they were ranked: the next ones take their places
            shown, wanted = wanted, wanted * 2
        return hits[: query.limit]

    async def _satisfying(self, question: Question, answers: Sequence[_Answer]) -> list[_Answer]:
        """Drop what lacks a quoted phrase or has an excluded word, whichever list found it."""
        if not question.is_strict:
            return list(answers)
        contents = {ContentId(entry.file) for answer in answers for entry in answer.entries if entry.file > 0}
        satisfying = await self._catalog.satisfying(question, contents)
        forbidden = bool(question.excluded)

        def may_stay(entry: fusion.Entry) -> bool:
            if entry.file in satisfying:
                return True
            # A name that has the phrase satisfies it; what a file without content excludes only its name can say.
            return entry.place is None and entry.strength >= 1.0 and not (forbidden and entry.file > 0)

        return [
            _Answer(
                answer.report, tuple(entry for entry in answer.entries if may_stay(entry)), answer.weight, answer.assets
            )
            for answer in answers
        ]

    async def _show(
        self, fused: Sequence[fusion.Fused], named: dict[int, AssetId], question: Question, scope: Scope
    ) -> list[Hit]:
        wanted = [Wanted(ContentId(one.file) if one.file > 0 else None, named.get(one.file)) for one in fused]
        places = [
            Place(ContentId(one.file), SegmentKind(one.place[0]), one.place[1])
            for one in fused
            if one.place is not None
        ]
        files, found = await self._catalog.show(wanted, places, question, scope)
        passages = iter(found)
        hits = []
        for one, file in zip(fused, files, strict=True):
            passage = next(passages) if one.place is not None else None
            if file is not None:
                hits.append(_hit(one, file, passage))
        return hits


def _checked(query: SearchQuery) -> Question:
    if not query.text.strip():
        message = "the question is empty"
        raise errors.BadRequest(message, hint="say what to look for: some words, a sentence or a file name")
    if query.limit < 1:
        message = f"{query.limit} hits were asked for"
        raise errors.BadRequest(message, hint="ask for 1 or more")
    question = Question.parse(query.text)
    if question.is_empty and question.excluded:
        message = "the question only says what to leave out"
        raise errors.BadRequest(message, hint="say also what to look for")
    return question


def _file_key(content: ContentId | None, asset: AssetId) -> int:
    """One number a file for fusion: its content, or, before that is known, its asset with a minus."""
    return int(content) if content is not None else -int(asset)


def _report(name: str, entries: Sequence[fusion.Entry], began: float) -> ListReport:
    return ListReport(name, len(entries), (time.perf_counter() - began) * 1000)


def _hit(one: fusion.Fused, file: ShownFile, passage: tuple[Segment, Snippet] | None) -> Hit:
    segment, (text, highlights) = passage if passage is not None else (None, ("", ()))
    ranks: tuple[ListRank, ...] = one.ranks
    return Hit(
        asset=file.asset,
        path=file.path,
        modality=file.modality,
        mime=file.mime,
        type_label=file.type_label,
        size=file.size,
        modified_ms=file.modified_ms,
        score=one.score,
        ranks=ranks,
        kind=None if segment is None else segment.kind,
        seq=None if segment is None else segment.seq,
        page=None if segment is None else segment.page,
        char_start=None if segment is None else segment.char_start,
        char_end=None if segment is None else segment.char_end,
        t0_ms=None if segment is None else segment.t0_ms,
        t1_ms=None if segment is None else segment.t1_ms,
        snippet=text,
        highlights=highlights,
        online=file.is_online,
        same_content=file.same_content,
    )
