"""Spaces as collections of qdrant-client: what a server and the in-memory double have in common.

A space is the collection `<space>_g1` under the alias `<space>`, made last: a killed creation leaves no space.
With a tenant (`host`), every operation carries it as a condition and every point id depends on it, so that machines
which hold the same files share a collection and never see or overwrite each other's points.
Imports qdrant_client (0.7 s, 70 MB): the store process only, and only where one of these engines is chosen.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid5

from qdrant_client import models

from msearchd import errors
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import ModelKey, Point, Space, SpaceName, Vectors
from msearchd.store.backends.port import Opened
from msearchd.store.backends.values import check_shape, checked_question, checked_rows, in_order, payload_of
from msearchd.store.vector_store import PointFilter, ScoredPoint, SpaceHealth, VectorSearch

T = TypeVar("T")

_VECTOR = "v"
_FIRST = "_g1"
_PAGE_POINTS = 2_000
_GENERATION = re.compile(r"(.+)_g\d+\Z")
_FOUND = ["content", "kind", "seq"]

INDEXES: dict[str, Any] = {
    "host": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "content": models.UuidIndexParams(type=models.UuidIndexType.UUID),
    "dirs": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False),
    "type": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
    "modality": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
    "kind": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD),
    "size": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=False, range=True),
}


class Collections:
    """Backend over an AsyncQdrantClient. A subclass says how a collection is made and how a call is retried."""

    def __init__(self, client: Any, *, tenant: str = "") -> None:
        self._client = client
        self._tenant = tenant
        self._spaces: dict[SpaceName, Space] = {}  # shape of every space seen
        self._ensured: dict[SpaceName, Space] = {}

    # -- for subclasses ----------------------------------------------------------------------------------------------

    async def _call(self, doing: str, call: Callable[[Any], Awaitable[T]], *, is_bulk: bool = False) -> T:
        """One call of the client, which *call* is given; translated errors, retried where that is safe (all are
        idempotent).
        """
        del doing, is_bulk
        return await call(self._client)

    async def _create(self, name: str, space: Space) -> None:
        """Make the collection *name* and its payload indexes; quiet where it exists."""
        raise NotImplementedError

    # -- Backend -----------------------------------------------------------------------------------------------------

    async def open(self, space: SpaceName) -> Opened:
        """Look the space up."""
        if space not in self._spaces:
            collection = (await self._aliases()).get(space)
            if collection is None:
                return Opened(is_there=False)
            info = await self._call(f"opening space {space}", lambda c: c.get_collection(collection))
            self._spaces[space] = _shape_of(space, info)
        return Opened(is_there=True)

    async def ensure(self, space: Space) -> Opened:
        """Look the space up or make it."""
        is_new = not (await self.open(space.name)).is_there
        if is_new:
            await self._create(space.name + _FIRST, space)
            alias = models.CreateAliasOperation(
                create_alias=models.CreateAlias(collection_name=space.name + _FIRST, alias_name=space.name)
            )
            await self._call(f"naming space {space.name}", lambda c: c.update_collection_aliases([alias]))
            self._spaces[space.name] = space
        check_shape(self._spaces[space.name], space)
        self._ensured[space.name] = space
        return Opened(is_there=True, is_new=is_new)

    async def upsert(self, space: SpaceName, points: Sequence[Point], vectors: Vectors) -> None:
        """Store one chunk."""
        shape = await self._shape(space)
        rows = checked_rows(shape, points, vectors)
        extra = {"host": self._tenant} if self._tenant else {}
        batch = [
            models.PointStruct(
                id=self._id_of(point),
                vector={_VECTOR: _vector(shape, row)},
                payload=payload_of(point) | extra,
            )
            for point, row in zip(points, rows, strict=True)
        ]

        await self._in(space, "writing to", lambda c: c.upsert(space, batch, wait=True), is_bulk=True)

    async def set_dirs(self, space: SpaceName, content: UUID, dirs: Sequence[int]) -> None:
        """Replace `dirs` of the tenant's points of *content*."""
        if (await self.open(space)).is_there:
            where = models.FilterSelector(filter=self._where(PointFilter(contents=(content,))))
            await self._in(
                space,
                "writing to",
                lambda c: c.set_payload(space, {"dirs": list(dirs)}, points=where, wait=True),
            )

    async def delete_contents(self, space: SpaceName, contents: Sequence[UUID]) -> None:
        """Delete the tenant's points of *contents*."""
        if (await self.open(space)).is_there:
            where = models.FilterSelector(filter=self._where(PointFilter(contents=tuple(contents))))
            await self._in(space, "deleting from", lambda c: c.delete(space, where, wait=True))

    async def search(self, searches: Sequence[VectorSearch]) -> list[list[ScoredPoint]]:
        """Answer all: one request a space, side by side."""
        answers: list[list[ScoredPoint]] = [[] for _ in searches]

        async def answer(space: SpaceName) -> None:
            places = [place for place, search in enumerate(searches) if search.space == space and search.limit > 0]
            if not places or not (await self.open(space)).is_there:
                return
            requests = [self._request(self._spaces[space], searches[place]) for place in places]
            replies = await self._in(space, "searching", lambda c: c.query_batch_points(space, requests))
            for place, reply in zip(places, replies, strict=True):
                answers[place] = in_order(_scored(hit.payload, hit.score) for hit in reply.points)

        names = list(dict.fromkeys(search.space for search in searches))
        if len(names) == 1:
            await answer(names[0])
        else:  # one after another where nothing suspends, side by side over a network
            await self._all([answer(space) for space in names])
        return answers

    async def count(self, space: SpaceName) -> int:
        """Exact number of the tenant's points."""
        if not (await self.open(space)).is_there:
            return 0
        where = self._where(PointFilter())
        reply = await self._in(space, "counting", lambda c: c.count(space, count_filter=where, exact=True))
        return int(reply.count)

    async def contents_page(self, space: SpaceName, after: str) -> tuple[dict[UUID, int], str]:
        """One page of the tenant's points."""
        if not (await self.open(space)).is_there:
            return {}, ""
        where = self._where(PointFilter())
        records, following = await self._in(
            space,
            "listing",
            lambda c: c.scroll(
                space,
                scroll_filter=where,
                limit=_PAGE_POINTS,
                offset=after or None,
                with_payload=["content"],
                with_vectors=False,
            ),
        )
        page = Counter(UUID(record.payload["content"]) for record in records)
        return dict(page), "" if following is None else str(following)

    async def flush(self) -> None:
        """Nothing to do: every write waited until the server had it in its own log."""

    async def optimize(self) -> None:
        """Nothing to do: a server optimizes by itself."""

    async def spaces(self) -> list[SpaceName]:
        """Spaces that this tenant has points in or has ensured."""
        names = sorted(await self._aliases())
        if not self._tenant:
            return names
        return [space for space in names if space in self._ensured or await self.count(space) > 0]

    async def drop(self, space: SpaceName) -> None:
        """Delete the tenant's points; the collection too where nobody has points in it."""
        self._ensured.pop(space, None)
        collection = (await self._aliases()).get(space)
        if collection is None:
            return
        if self._tenant:
            where = models.FilterSelector(filter=self._where(PointFilter()))
            await self._call(f"deleting space {space}", lambda c: c.delete(space, where, wait=True))
            left = await self._call(f"deleting space {space}", lambda c: c.count(space, exact=True))
            if left.count:
                return
        self._spaces.pop(space, None)
        await self._call(f"deleting space {space}", lambda c: c.delete_collection(collection))

    async def blame(self, space: SpaceName, reason: str) -> str:
        """A server's files are its own business."""
        del space, reason
        return ""

    async def health(self) -> dict[SpaceName, SpaceHealth]:
        """Exact counts; the server's disk is its own business."""
        return {space: SpaceHealth(await self.count(space)) for space in await self.spaces()}

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    # -- values ------------------------------------------------------------------------------------------------------

    async def _all(self, answers: list[Any]) -> None:
        await asyncio.gather(*answers)

    async def _in(
        self, space: SpaceName, doing: str, call: Callable[[Any], Awaitable[T]], *, is_bulk: bool = False
    ) -> T:
        """A call on a space that was there. NotFound: somebody removed it; it is looked up again at the next use."""
        try:
            return await self._call(f"{doing} space {space}", call, is_bulk=is_bulk)
        except errors.NotFound:
            self._spaces.pop(space, None)
            raise

    async def _aliases(self) -> dict[SpaceName, str]:
        reply = await self._call("listing spaces", lambda c: c.get_aliases())
        pairs = ((item.alias_name, item.collection_name) for item in reply.aliases)
        return {
            SpaceName(alias): name for alias, name in pairs if (match := _GENERATION.match(name)) and match[1] == alias
        }

    async def _shape(self, space: SpaceName) -> Space:
        if not (await self.open(space)).is_there:
            raise errors.NotFound(f"there is no space {space}", hint="ensure it first")
        return self._spaces[space]

    def _id_of(self, point: Point) -> str:
        return str(uuid5(point.id, self._tenant) if self._tenant else point.id)

    def _where(self, conditions: PointFilter) -> models.Filter | None:
        must: list[Any] = [
            _any_of(field, values)
            for field, values in (
                ("host", [self._tenant] if self._tenant else []),
                ("dirs", list(conditions.any_dir)),
                ("type", list(conditions.type_labels)),
                ("modality", list(conditions.modalities)),
                ("content", [str(content) for content in conditions.contents]),
                ("kind", [kind.value for kind in conditions.kinds]),
            )
            if values
        ]
        if conditions.min_size is not None or conditions.max_size is not None:
            size = models.Range(gte=conditions.min_size, lte=conditions.max_size)
            must.append(models.FieldCondition(key="size", range=size))
        return models.Filter(must=must) if must else None

    def _request(self, space: Space, search: VectorSearch) -> models.QueryRequest:
        return models.QueryRequest(
            query=_vector(space, checked_question(space, search)),
            using=_VECTOR,
            limit=search.limit,
            filter=self._where(search.filter),
            with_payload=_FOUND,
            params=models.SearchParams(exact=search.is_exact) if space.sparse else self._params(search.is_exact),
        )

    def _params(self, is_exact: bool) -> models.SearchParams | None:
        rescored = models.QuantizationSearchParams(rescore=True, oversampling=2.0)
        quantization = models.QuantizationSearchParams(ignore=True) if is_exact else rescored
        return models.SearchParams(exact=is_exact, quantization=quantization)


def vector_params(space: Space, **more: Any) -> dict[str, Any]:
    """The one named vector of a space's collection, as arguments of its creation. *more* is for dense vectors."""
    if space.sparse:
        # No modifier: what a rare word is worth, the model has learned.
        sparse = models.SparseVectorParams(index=models.SparseIndexParams(on_disk=False))
        return {"vectors_config": {}, "sparse_vectors_config": {_VECTOR: sparse}}
    if space.multi:
        more["multivector_config"] = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = models.VectorParams(size=space.dim, distance=models.Distance.COSINE, **more)
    return {"vectors_config": {_VECTOR: params}}


def _vector(space: Space, row: Any) -> Any:
    """A checked vector as the client takes it."""
    if space.sparse:
        return models.SparseVector(indices=row[0], values=row[1])
    return row if isinstance(row, list) else row.tolist()


def _shape_of(space: SpaceName, info: Any) -> Space:
    if _VECTOR in (info.config.params.sparse_vectors or {}):
        return Space(space, ModelKey(""), "", 0, distance="dot", sparse=True)
    vectors = info.config.params.vectors
    params = vectors.get(_VECTOR) if isinstance(vectors, dict) else None
    if params is None:
        raise errors.Misconfigured(
            f"the collection of space {space} was not made by msearchd",
            key="store.url",
            hint="rename that collection's alias, or use another server",
        )
    return Space(space, ModelKey(""), "", int(params.size), multi=params.multivector_config is not None)


def _any_of(field: str, values: Sequence[Any]) -> models.FieldCondition:
    match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=list(values))
    return models.FieldCondition(key=field, match=match)


def _scored(payload: dict[str, Any], score: float) -> ScoredPoint:
    return ScoredPoint(UUID(payload["content"]), SegmentKind(payload["kind"]), payload["seq"], float(score))
