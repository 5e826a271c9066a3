"""A search as the control API asks and answers it: words of the API here, words of the domain behind.

In: SearchRequest. Out: the control package's SearchReply. Decides nothing.
"""

from __future__ import annotations

from msearchd.control import search_replies
from msearchd.control.requests import SearchRequest
from msearchd.control.types import path_bytes, path_text
from msearchd.domain.query import Filters, Hit, SearchQuery
from msearchd.search.lists import ListReport
from msearchd.search.service import SearchService


async def answer(service: SearchService, request: SearchRequest) -> search_replies.SearchReply:
    """Ask *service*. Raises what it raises: BadRequest, RetryLater, Misconfigured."""
    reply = await service.search(query_of(request))
    return search_replies.SearchReply(
        hits=[_hit(hit) for hit in reply.hits],
        took_ms=reply.took_ms,
        lists=[_list(report) for report in reply.lists],
        missing=list(reply.missing),
        retry_after_s=reply.retry_after_s,
    )


def query_of(request: SearchRequest) -> SearchQuery:
    """The question as the search stage takes it."""
    filters = Filters(
        folders=tuple(path_bytes(folder) for folder in request.folders),
        types=tuple(request.types),
        modified_after_ms=request.modified_after_ms,
        modified_before_ms=request.modified_before_ms,
        min_size_bytes=request.min_size_bytes,
        max_size_bytes=request.max_size_bytes,
    )
    return SearchQuery(
        request.text,
        limit=request.limit,
        filters=filters,
        image=path_bytes(request.image) if request.image else None,
        audio=path_bytes(request.audio) if request.audio else None,
        like=path_bytes(request.like) if request.like else None,
        wait_s=request.wait_s,
    )


def _hit(hit: Hit) -> search_replies.HitReply:
    return search_replies.HitReply(
        path=path_text(hit.path),
        modality=hit.modality.value,
        mime=hit.mime,
        type_label=hit.type_label,
        size_bytes=hit.size,
        modified_ms=hit.modified_ms,
        score=hit.score,
        ranks=[search_replies.HitRank(list=rank.list, rank=rank.rank, score=rank.score) for rank in hit.ranks],
        kind=None if hit.kind is None else hit.kind.value,
        page=hit.page,
        char_start=hit.char_start,
        char_end=hit.char_end,
        t0_ms=hit.t0_ms,
        t1_ms=hit.t1_ms,
        snippet=hit.snippet,
        highlights=list(hit.highlights),
        is_online=hit.online,
        is_weak=hit.is_weak,
        same_content=[path_text(path) for path in hit.same_content],
    )


def _list(report: ListReport) -> search_replies.ListReply:
    return search_replies.ListReply(
        list=report.name, candidates=report.candidates, took_ms=report.took_ms, error=report.error
    )
