"""The list of near vectors: embeds the question, asks the store, keeps what may be shown.

In: a text and a scope. Out: live segments, nearest first. Where hidden or filtered files took the places, more is
asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msearchd.domain.space import Space, SpaceName, Vectors
from msearchd.store.catalog import Catalog, ShownSegment
from msearchd.store.catalog.scope import Scope
from msearchd.store.vector_store import VectorSearch, VectorStore

#: Each round asks for four times as many points; the last one for up to 64 times the candidates.
_ROUNDS: Final = 4
_GROWTH: Final = 4
#: Points that the store cannot filter exactly are asked for in excess from the start.
_LOOSE_FACTOR: Final = 4


class Meaning:
    """Nearest segments to a question."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        embed: Callable[[str], Awaitable[tuple[Space, Vectors] | None]],
        *,
        candidates: int,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._embed = embed
        self._candidates = candidates

    async def near(self, text: str, scope: Scope, *, files: int) -> tuple[SpaceName, list[ShownSegment]] | None:
        """The space that was asked and its nearest segments, enough for *files* files where there are as many.

        None where search by meaning is off. Raises what the model worker and the store raise.
        """
        embedded = await self._embed(text)
        if embedded is None:
            return None
        space, vector = embedded
        if scope.point_filter is None:
            return space.name, []
        limit = self._candidates * (_LOOSE_FACTOR if scope.is_loose else 1)
        found: list[ShownSegment] = []
        for _ in range(_ROUNDS):
            question = VectorSearch(space.name, vector, limit, scope.point_filter)
            [points] = await self._store.search([question])
            found = await self._catalog.resolve(space.name, points, scope)
            if len(points) < limit or len({one.content for one in found}) >= min(files, self._candidates):
                break
            limit *= _GROWTH
        return space.name, found
