"""From ranked lists to hits: drops what must not be there, fuses, and joins with the catalog.

In: a question, a scope and the lists' answers. Out: hits with their passages, best first. Holds no state.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from msearchd.domain.asset import AssetId, ContentId
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.query import Hit, ListRank, SearchQuery
from msearchd.search import fusion
from msearchd.search.lists import Answer
from msearchd.search.rerank import Shown
from msearchd.store.catalog import Catalog, ShownFile
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.resolve import Place, Wanted
from msearchd.store.catalog.scope import Scope
from msearchd.store.catalog.snippet import Snippet


class Showing:
    """Makes hits. *rrf_k*: the constant of the fusion."""

    def __init__(self, catalog: Catalog, *, rrf_k: float) -> None:
        self._catalog = catalog
        self._rrf_k = rrf_k

    async def hits(
        self, query: SearchQuery, question: Question, scope: Scope, answers: Sequence[Answer]
    ) -> list[Shown]:
        """At most `query.limit` hits, best first."""
        answers = await self._satisfying(question, answers)
        lists = [fusion.RankedList(answer.report.name, answer.weight, answer.entries) for answer in answers]
        named: dict[int, AssetId] = {}
        for file, asset in (pair for answer in answers for pair in answer.assets):
            named.setdefault(file, asset)
        strong = {entry.file for answer in answers for entry in answer.entries if not entry.is_weak}
        hits: list[Shown] = []
        shown, wanted = 0, query.limit
        while len(hits) < query.limit:
            fused = fusion.fuse(lists, k=self._rrf_k, limit=wanted)
            hits += await self._show(fused[shown:], named, question, scope, strong)
            if len(fused) < wanted:
                break  # else some went since they were ranked: the next ones take their places
            shown, wanted = wanted, wanted * 2
        return hits[: query.limit]

    async def _satisfying(self, question: Question, answers: Sequence[Answer]) -> list[Answer]:
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
            Answer(
                answer.report, tuple(entry for entry in answer.entries if may_stay(entry)), answer.weight, answer.assets
            )
            for answer in answers
        ]

    async def _show(
        self,
        fused: Sequence[fusion.Fused],
        named: dict[int, AssetId],
        question: Question,
        scope: Scope,
        strong: Collection[int],
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
                hit = replace(_hit(one, file, passage), is_weak=one.file not in strong)
                hits.append(Shown(hit, passage[0].text if passage else "", one.is_exact))
        return hits


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
