"""The lists of near vectors: asks the store, keeps what may be shown.

In: a question as vectors and a scope. Out: live segments, nearest first. Where hidden or filtered files took the places, more is
asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msearchd.search.asker import Asked
from msearchd.store.catalog import Catalog, ShownSegment
from msearchd.store.catalog.scope import Scope
from msearchd.store.vector_store import ScoredPoint, VectorSearch, VectorStore

#: Each round asks for four times as many points; the last one for up to 64 times the candidates.
_ROUNDS: Final = 4
_GROWTH: Final = 4
#: Points that the store cannot filter exactly are asked for in excess from the start.
_LOOSE_FACTOR: Final = 4


class Meaning:
    """Nearest segments to a question."""

    def __init__(self, catalog: Catalog, store: VectorStore, *, candidates: int) -> None:
        self._catalog = catalog
        self._store = store
        self._candidates = candidates

    async def near(self, asked: Asked, scope: Scope, *, files: int) -> list[ShownSegment]:
        """The nearest segments to any of the vectors, enough for *files* files where there are as many.

        Raises what the store raises.
        """
        if scope.point_filter is None:
            return []
        limit = self._candidates * (_LOOSE_FACTOR if scope.is_loose else 1)
        found: list[ShownSegment] = []
        for _ in range(_ROUNDS):
            answers = await self._store.search(
                [VectorSearch(asked.space.name, vector, limit, scope.point_filter) for vector in asked.vectors]
            )
            found = await self._catalog.resolve(asked.space.name, nearest(answers), scope)
            most = max((len(points) for points in answers), default=0)
            if most < limit or len({one.content for one in found}) >= min(files, self._candidates):
                break
            limit *= _GROWTH
        return found


def nearest(answers: Sequence[Sequence[ScoredPoint]]) -> list[ScoredPoint]:
    """The points of several answers of one space, each once with its best score, best first. Pure."""
    if len(answers) == 1:
        return list(answers[0])
    best: dict[tuple[UUID, str, int], ScoredPoint] = {}
    for point in (point for points in answers for point in points):
        key = (point.content, point.kind.value, point.seq)
        if key not in best or point.score > best[key].score:
            best[key] = point
    return sorted(best.values(), key=lambda point: (-point.score, point.content, point.seq))
