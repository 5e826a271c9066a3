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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from msearchd import errors
from msearchd.domain.asset import AssetId, ContentId
from msearchd.domain.query import Hit, SearchQuery
from msearchd.domain.sample import Sample
from msearchd.inference.pool import Role
from msearchd.search import fusion
from msearchd.search.asker import BESIDE_TEXT, LEARNED, Questions
from msearchd.search.examples import Example, Examples
from msearchd.search.floors import Floors
from msearchd.search.lists import PATIENCE_S, Answer, Ask, ListReport, failed, gathered, late, report
from msearchd.search.meaning import Meaning
from msearchd.search.rerank import LIST as RERANKED
from msearchd.search.rerank import Rerank, comparable, reordered
from msearchd.search.showing import Showing
from msearchd.settings.model import SearchSettings
from msearchd.store.catalog import Catalog
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.scope import Scope
from msearchd.store.vector_store import VectorStore

#: A passage that has every word asked for beats the nearest passage that lacks some; one with some of them counts less.
_ALL_WORDS, _SOME_WORDS = 1.5, 0.7
#: For the marks of what is no nearer than chance, however long the lists took.
_LEAST_MARKING_S = 0.25


@dataclass(frozen=True, slots=True)
class SearchReply:
    """Hits, best first; how each list fared; what the answer lacks, in sentences.

    `retry_after_s`: a model still loads, and asked again after so many seconds there will be more; None: this is all.
    """

    hits: tuple[Hit, ...]
    took_ms: float
    lists: tuple[ListReport, ...]
    missing: tuple[str, ...]
    retry_after_s: float | None = None


class SearchService:
    """Answers questions. Shared by all callers; each search is independent.

    *examples* reads files that are asked with; *rerank* compares the best passages once more. None: not to be had.
    *rerank_loading_s*: what loading its model takes yet; None: it is loaded.
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
        rerank_loading_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._questions = questions
        self._meaning = Meaning(catalog, store, candidates=settings.candidates)
        self._floors = Floors(catalog, store, questions)
        self._showing = Showing(catalog, rrf_k=settings.rrf_k)
        self._settings = settings
        self._examples = examples
        self._rerank = rerank
        self._rerank_loading_s = rerank_loading_s

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
        lacking = [answer.report for answer in answers if answer.report.error]
        if not answers:
            message = "every list has weight 0"
            raise errors.Misconfigured(message, key="search", hint="set one of search.weight_* above 0")
        later_s = [one.loading_s for one in lacking if one.loading_s is not None]
        if len(lacking) == len(answers):
            message = "no list answered: " + "; ".join(one.error for one in lacking)
            raise errors.RetryLater(message, after_s=max((1.0, *later_s)), hint="msearch status says what is wrong")
        if not examples and is_unknown(answers):
            left_s = self._settings.query_timeout_s - (time.perf_counter() - began)
            answers = await self._floors.marked(answers, limit_s=max(_LEAST_MARKING_S, left_s))
        itself = {one.itself for one in examples if one.itself is not None}
        hits, trouble = await self._ranked(query, question, scope, without(answers, itself))
        lacking += trouble
        later_s += [one.loading_s for one in trouble if one.loading_s is not None]
        return SearchReply(
            hits=tuple(hits),
            took_ms=(time.perf_counter() - began) * 1000,
            lists=tuple(answer.report for answer in answers),
            missing=tuple(one.sentence for one in lacking),
            retry_after_s=max((1.0, *later_s)) if later_s else None,
        )

    # -- lists --------------------------------------------------------------------------------------------------------

    async def _ask_all(
        self, query: SearchQuery, question: Question, scope: Scope, examples: Sequence[Example]
    ) -> list[Answer]:
        weights = self._settings
        asks: list[tuple[float, Ask]] = []
        if query.text.strip():
            text: tuple[Sample, ...] = (question.plain or query.text,)
            asks += [
                (weights.weight_words, Ask("words", lambda: self._words(question, scope))),
                (weights.weight_names, Ask("names", lambda: self._names(query.text, scope))),
            ]
            if max(weights.weight_meaning, weights.weight_sparse) > 0:
                near = [Example(one, text) for one in ("text", *await self._questions.modalities())]
                asks += [
                    (weight, await self._asking(one, scope, query.limit, Role.QUERY))
                    for one in near
                    if (weight := self._weight_of(one.modality)) > 0
                ]
        asks += [(1.0, await self._asking(one, scope, query.limit, Role.DOCUMENT)) for one in examples]
        wanted = [ask for weight, ask in asks if weight > 0]
        return await gathered(wanted, limit_s=weights.query_timeout_s, wait_s=query.wait_s)

    async def _asking(self, example: Example, scope: Scope, files: int, role: Role) -> Ask:
        loading_s = await self._questions.loading_s(example.modality)
        return Ask(_list_name(example), lambda: self._near(example, scope, files=files, role=role), loading_s)

    async def _words(self, question: Question, scope: Scope) -> Answer:
        began = time.perf_counter()
        found = await self._catalog.words(question, scope, limit=self._settings.candidates)
        entries = tuple(
            fusion.Entry(one.content, (one.kind, one.seq), one.score, _ALL_WORDS if one.is_full else _SOME_WORDS)
            for one in found
        )
        return Answer(report("words", entries, began), entries, self._settings.weight_words)

    async def _names(self, text: str, scope: Scope) -> Answer:
        began = time.perf_counter()
        found = await self._catalog.names(text, scope, limit=self._settings.candidates)
        # The square: half of the question in a name is a quarter of a reason.
        entries = tuple(
            fusion.Entry(_file_key(one.content, one.asset), None, one.score, one.score**2, one.is_exact)
            for one in found
        )
        assets = tuple((entry.file, one.asset) for entry, one in zip(entries, found, strict=True))
        return Answer(report("names", entries, began), entries, self._settings.weight_names, assets)

    async def _near(self, example: Example, scope: Scope, *, files: int, role: Role) -> Answer:
        began = time.perf_counter()
        asked = await self._questions.ask(example.modality, example.samples, role=role)
        if asked is None:
            return Answer(ListReport(_list_name(example), 0, 0.0))  # switched off: nothing is missing
        # One more file than asked for: an example finds itself first.
        found = await self._meaning.near(asked, scope, files=files + (example.itself is not None))
        entries = tuple(fusion.Entry(one.content, (one.kind, one.seq), one.score) for one in found)
        weight = self._weight_of(example.modality)
        name = LEARNED if asked.space.sparse else asked.space.name
        weight = weight if role is Role.QUERY else max(weight, 1.0)
        return Answer(report(name, entries, began), entries, weight, near=(example.modality, asked))

    def _weight_of(self, modality: str) -> float:
        return self._settings.weight_sparse if modality == "sparse" else self._settings.weight_meaning

    # -- hits ---------------------------------------------------------------------------------------------------------

    async def _ranked(
        self, query: SearchQuery, question: Question, scope: Scope, answers: Sequence[Answer]
    ) -> tuple[list[Hit], list[ListReport]]:
        """The hits, compared once more where that is asked for; and a report where that failed."""
        if self._rerank is None or not query.text.strip():
            return [one.hit for one in await self._showing.hits(query, question, scope, answers)], []
        at_most = self._settings.rerank_passages
        wider = replace(query, limit=max(query.limit, at_most))
        shown = await self._showing.hits(wider, question, scope, answers)
        places = comparable(shown, at_most=at_most)
        scores: tuple[float, ...] = ()
        trouble: list[ListReport] = []
        loading_s = self._rerank_loading_s()
        limit_s = self._settings.query_timeout_s
        if loading_s is not None:  # it only puts the hits in a better order: nobody waits for that
            limit_s = PATIENCE_S if query.wait_s is None else query.wait_s
        began = time.perf_counter()
        try:
            async with asyncio.timeout(limit_s):
                scores = await self._rerank(question.plain or query.text, [shown[place].passage for place in places])
        except TimeoutError:
            is_late = loading_s is not None
            trouble = [
                late(RERANKED, loading_s, took_s=limit_s)
                if is_late
                else failed(RERANKED, began, f"no answer within {limit_s:g} s")
            ]
        except errors.MsearchError as error:
            trouble = [failed(RERANKED, began, error.sentence())]
        hits = reordered(shown, dict(zip(places, scores, strict=True)) if scores else {})
        return hits[: query.limit], trouble


def is_unknown(answers: Sequence[Answer]) -> bool:
    """True where words and names were asked and no file has any of the question's words. Pure."""
    by_text = [answer for answer in answers if answer.near is None and answer.report.name in {"words", "names"}]
    return len(by_text) == 2 and not any(answer.entries or answer.report.error for answer in by_text)


def without(answers: Sequence[Answer], contents: Collection[ContentId]) -> list[Answer]:
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
