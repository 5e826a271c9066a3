"""What search asks the catalog: ranked words, ranked names, what the store is told, and the join of what it found.

In: a question, a scope (resolved filters), scored points. Out: values. All reads run beside the writer and see every
acknowledged write, so a file that was hidden is in no answer that begins after the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import ContentId
from msearchd.domain.media import Segment
from msearchd.domain.query import Filters
from msearchd.domain.space import SpaceName
from msearchd.store.catalog import names, resolve, words
from msearchd.store.catalog import scope as scopes
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.resolve import Place, Wanted
from msearchd.store.catalog.rows import RankedName, RankedSegment, ShownFile, ShownSegment
from msearchd.store.catalog.scope import OPEN, Scope
from msearchd.store.catalog.snippet import Snippet
from msearchd.store.vector_store import PointFilter, ScoredPoint


class CatalogSearch:
    """Reads for search, beside the writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._term_counts = words.TermCounts()

    async def scope(self, filters: Filters) -> Scope:
        """The filters, resolved. Raises BadRequest for an unknown folder or an empty range, with what to do."""
        if filters == Filters():
            return OPEN
        return await self._database.read(lambda c: scopes.resolve(c, filters))

    async def point_filter(self, filters: Filters) -> PointFilter | None:
        """What the vector store is told; None: nothing can match."""
        return (await self.scope(filters)).point_filter

    async def words(self, question: Question, within: Scope = OPEN, *, limit: int) -> list[RankedSegment]:
        """Segments whose words match, best first (bm25; those with all words before those with some)."""
        return await self._database.read(lambda c: words.ranked(c, question, within, self._term_counts, limit=limit))

    async def names(self, text: str, within: Scope = OPEN, *, limit: int) -> list[RankedName]:
        """Files whose names match, best first; exact names before all others."""
        question = Question.parse(text)
        return await self._database.read(lambda c: names.ranked(c, text, question, within, limit=limit))

    async def resolve(
        self, space: SpaceName, points: Sequence[ScoredPoint], within: Scope = OPEN
    ) -> list[ShownSegment]:
        """The points that may be shown, in their order: live in the space, of visible files, within the scope."""
        return await self._database.read(lambda c: resolve.live_segments(c, space, points, within))

    async def satisfying(self, question: Question, contents: Collection[ContentId]) -> set[ContentId]:
        """Those of *contents* that have every quoted phrase and nothing that is excluded."""
        if not question.is_strict:
            return set(contents)
        return await self._database.read(lambda c: words.satisfying(c, question, contents))

    async def show(
        self,
        wanted: Sequence[Wanted],
        places: Sequence[Place],
        question: Question,
        within: Scope = OPEN,
    ) -> tuple[list[ShownFile | None], list[tuple[Segment, Snippet] | None]]:
        """The file of each *wanted* and the passage of each place, in order; None where it may not be shown."""
        return await self._database.read(
            lambda c: (resolve.show(c, wanted, within), resolve.passages(c, places, question))
        )
