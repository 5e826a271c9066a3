"""Turns one question into hits.

In: a `SearchQuery`. Out: a `SearchReply`. Asks all lists at once (words, names, and each space that the question can be
asked in), leaves out and names those that fail or are late, fuses ranks, joins with the catalog. Never changes anything;
holds no state.

    question ─┬─ words ──────────────────┐
              ├─ names ──────────────────┼─ satisfying ─ fuse ─ show ─ (rerank) ─▶ hits
              ├─ meaning of its text ────┤
              └─ pictures, sounds, pages ┘   example ─▶ the space of its kind
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace

from msearchd import errors
from msearchd.domain.asset import AssetId, ContentId
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.query import Hit, ListRank, SearchQuery
from msearchd.domain.sample import Sample
from msearchd.inference.pool import Role
from msearchd.search import fusion
from msearchd.search.asker import BESIDE_TEXT, Questions
from msearchd.search.examples import Example, Examples
from msearchd.search.meaning import Meaning
from msearchd.search.rerank import LIST as RERANKED
from msearchd.search.rerank import Rerank, Shown, comparable, reordered
from msearchd.settings.model import SearchSettings
from msearchd.store.catalog import Catalog, ShownFile
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.resolve import Place, Wanted
from msearchd.store.catalog.scope import Scope
from msearchd.store.catalog.snippet import Snippet
from msearchd.store.vector_store import VectorStore

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
    """Answers questions. Shared by all callers; each search is independent.

    *examples* reads files that are asked with; *rerank* compares the best passages once more. None: not to be had.
    """

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        questions: Questions,
        settings: SearchSettings,
        *,
        examples: Examples | None = None,
        rerank: Rerank | None = None,
    ) -> None:
        self._catalog = catalog
        self._questions = questions
        self._meaning = Meaning(catalog, store, candidates=settings.candidates)
        self._settings = settings
        self._examples = examples
        self._rerank = rerank

    async def search(self, query: SearchQuery) -> SearchReply:
        """The best files for *query*, at most `query.limit`.

        Raises BadRequest for a question without words or example, a limit below 1, an unknown folder, an empty range or
        an example that cannot be read; NotFound for one that is not there; Misconfigured where no model reads it;
        RetryLater where no list answered at all. Cancelled: nothing is left behind.
        """
        began = time.perf_counter()
        query = replace(
            query, text=query.text.encode("utf-8", "replace").decode("utf-8")
        )  # lone surrogates are no words
        question = _checked(query)
        scope = await self._catalog.scope(query.filters)
        examples = await self._examples.of(query) if self._examples is not None and query.has_example else []
        answers = await self._ask_all(query, question, scope, examples)
        failed = [answer.report for answer in answers if answer.report.error]
        if not answers:
            message = "every list has weight 0"
            raise errors.Misconfigured(message, key="search", hint="set one of search.weight_* above 0")
        if len(failed) == len(answers):
            message = "no list answered: " + "; ".join(report.error for report in failed)
            raise errors.RetryLater(message, after_s=1.0, hint="msearch status says what is wrong")
        itself = {one.itself for one in examples if one.itself is not None}
        hits, trouble = await self._ranked(query, question, scope, without(answers, itself))
        failed += trouble
        return SearchReply(
            hits=tuple(hits),
            took_ms=(time.perf_counter() - began) * 1000,
            lists=tuple(answer.report for answer in answers),
            missing=tuple(f"the list of {report.name} is missing: {report.error}" for report in failed),
        )

    # -- lists --------------------------------------------------------------------------------------------------------

    async def _ask_all(
        self, query: SearchQuery, question: Question, scope: Scope, examples: Sequence[Example]
    ) -> list[_Answer]:
        weights = self._settings
        asked: list[tuple[str, float, Callable[[], Awaitable[_Answer]]]] = []
        if query.text.strip():
            text: tuple[Sample, ...] = (question.plain or query.text,)
            asked += [
                ("words", weights.weight_words, lambda: self._words(question, scope)),
                ("names", weights.weight_names, lambda: self._names(query.text, scope)),
            ]
            near = [Example("text", text), *(Example(modality, text) for modality in await self._beside_text())]
            asked += [
                (_list_name(one), weights.weight_meaning, self._asking(one, scope, query.limit, Role.QUERY))
                for one in near
            ]
        asked += [
            (_list_name(one), max(weights.weight_meaning, 1.0), self._asking(one, scope, query.limit, Role.DOCUMENT))
            for one in examples
        ]
        return list(await asyncio.gather(*(self._in_time(name, ask) for name, weight, ask in asked if weight > 0)))

    async def _beside_text(self) -> tuple[str, ...]:
        return await self._questions.modalities() if self._settings.weight_meaning > 0 else ()

    def _asking(self, example: Example, scope: Scope, files: int, role: Role) -> Callable[[], Awaitable[_Answer]]:
        return lambda: self._near(example, scope, files=files, role=role)

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
        return _Answer(_failed(name, began, reason))

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

    async def _near(self, example: Example, scope: Scope, *, files: int, role: Role) -> _Answer:
        began = time.perf_counter()
        asked = await self._questions.ask(example.modality, example.samples, role=role)
        if asked is None:
            return _Answer(ListReport(_list_name(example), 0, 0.0))  # switched off: nothing is missing
        # One more file than asked for: an example finds itself first.
        found = await self._meaning.near(asked, scope, files=files + (example.itself is not None))
        entries = tuple(fusion.Entry(one.content, (one.kind, one.seq), one.score) for one in found)
        weight = self._settings.weight_meaning if role is Role.QUERY else max(self._settings.weight_meaning, 1.0)
        return _Answer(_report(asked.space.name, entries, began), entries, weight)

    # -- hits ---------------------------------------------------------------------------------------------------------

    async def _ranked(
        self, query: SearchQuery, question: Question, scope: Scope, answers: Sequence[_Answer]
    ) -> tuple[list[Hit], list[ListReport]]:
        """The hits, compared once more where that is asked for; and a report where that failed."""
        if self._rerank is None or not query.text.strip():
            return [one.hit for one in await self._hits(query, question, scope, answers)], []
        at_most = self._settings.rerank_passages
        wider = replace(query, limit=max(query.limit, at_most))
        shown = await self._hits(wider, question, scope, answers)
        places = comparable(shown, at_most=at_most)
        scores: tuple[float, ...] = ()
        trouble: list[ListReport] = []
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.query_timeout_s):
                scores = await self._rerank(question.plain or query.text, [shown[place].passage for place in places])
        except TimeoutError:
            trouble = [_failed(RERANKED, began, f"no answer within {self._settings.query_timeout_s:g} s")]
        except errors.MsearchError as error:
            trouble = [_failed(RERANKED, began, error.sentence())]
        hits = reordered(shown, dict(zip(places, scores, strict=True)) if scores else {})
        return hits[: query.limit], trouble

    async def _hits(
        self, query: SearchQuery, question: Question, scope: Scope, answers: Sequence[_Answer]
    ) -> list[Shown]:
        answers = await self._satisfying(question, answers)
        lists = [fusion.RankedList(answer.report.name, answer.weight, answer.entries) for answer in answers]
        named: dict[int, AssetId] = {}
        for file, asset in (pair for answer in answers for pair in answer.assets):
            named.setdefault(file, asset)
        hits: list[Shown] = []
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
    ) -> list[Shown]:
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
                hits.append(Shown(_hit(one, file, passage), passage[0].text if passage else "", one.is_exact))
        return hits


def without(answers: Sequence[_Answer], contents: Collection[ContentId]) -> list[_Answer]:
    """*answers* without these contents: a file is no answer to the question what is like it."""
    if not contents:
        return list(answers)
    return [
        replace(answer, entries=tuple(entry for entry in answer.entries if entry.file not in contents))
        for answer in answers
    ]


def _checked(query: SearchQuery) -> Question:
    if not query.text.strip() and not query.has_example:
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


def _list_name(example: Example) -> str:
    """The list's name until its space is known."""
    return BESIDE_TEXT.get(example.modality, "meaning")


def _failed(name: str, began: float, reason: str) -> ListReport:
    return ListReport(name, 0, (time.perf_counter() - began) * 1000, reason)


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
