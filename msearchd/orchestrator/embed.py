"""The embed step: passages of many files in one request, their points, then one transaction that makes them live.

Order of writes: intent rows → upsert (ids are pure, so again is harmless) → content live + job complete in ONE
transaction → intents cleared after the store's next flush. Killed anywhere in between, nothing visible is missing and
nothing invisible stays: the start redoes what has an intent.

A turn embeds about one request and gives the other jobs back: a group of long files is minutes of work, and what somebody
waits for must not stand behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.job import Job
from msearchd.domain.media import Segment
from msearchd.domain.space import ModelKey, Point, PointPayload, PointRef, Space
from msearchd.orchestrator.document_vectors import DocumentVectors
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog, ContentRow
from msearchd.store.vector_cache import key_of
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)

#: Passages in one request: enough to sort by length across files, few enough (2 s on one core) to stay in step.
PASSAGES_PER_REQUEST: Final = 256
#: Every so many turns begin with the jobs of the worst priority, so that the back-fill keeps its eighth (see jobs.turns)
#: where long files of better ones come all the time.
_TURNS_OF_BEST: Final = 8

#: Has jobs shown as running while it is entered.
Noted = Callable[[Sequence[Job]], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A content to embed, and the jobs that wait for it (several files can have the same bytes)."""

    content: ContentRow
    segments: tuple[Segment, ...]
    jobs: tuple[Job, ...]
    dirs: tuple[int, ...]


class EmbedStep:
    """Runs groups of embed jobs of one model."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        outcomes: Outcomes,
        vectors: DocumentVectors,
        store: VectorStore,
        spaces: Spaces,
        content_locks: KeyedLocks,
        deadline_s: float,
    ) -> None:
        self._catalog = catalog
        self._outcomes = outcomes
        self._vectors = vectors
        self._store = store
        self._spaces = spaces
        self._locks = content_locks
        self._deadline_s = deadline_s
        self._turns = 0

    async def run(self, jobs: Sequence[Job], noted: Noted) -> None:
        """Embed some of what *jobs* (all of one target) owe; every one is done, delayed, blocked, failed or ready after it.

        Those that are ready again were not begun. At least one was.
        """
        model = ModelKey(jobs[0].target)
        try:
            space = await self._spaces.of(model)
        except errors.MsearchError as error:
            for job in jobs:
                await self._outcomes.not_done(job, error)
            return
        self._turns += 1
        in_order = jobs[::-1] if self._turns % _TURNS_OF_BEST == 0 else jobs
        by_content, homeless = await self._sort_by_content(in_order)
        for job in homeless:
            await self._outcomes.done(job)
        chosen, later = await self._choose(by_content)
        if later:
            await self._outcomes.given_back(later)
        # Only of what is chosen: the other group in flight may have claimed the rest by now.
        async with self._locks.hold_all({content.content_hash for content, _ in chosen}):
            pieces = [
                piece for content, owing in chosen if (piece := await self._piece(space, content, owing)) is not None
            ]
            if pieces:
                with noted([job for piece in pieces for job in piece.jobs]):
                    await self._embed_pieces(space, pieces)

    async def _choose(
        self, owing: Sequence[tuple[ContentRow, list[Job]]]
    ) -> tuple[Sequence[tuple[ContentRow, list[Job]]], list[Job]]:
        """What fills a request, at least one content; and the jobs of all others, which were not looked at."""
        passages = 0
        for place, (content, _) in enumerate(owing):
            if passages >= PASSAGES_PER_REQUEST:
                return owing[:place], [job for _, jobs in owing[place:] for job in jobs]
            passages += len(await self._catalog.segments(content.id))
        return owing, []

    async def _sort_by_content(self, jobs: Sequence[Job]) -> tuple[list[tuple[ContentRow, list[Job]]], list[Job]]:
        found: dict[int, tuple[ContentRow, list[Job]]] = {}
        homeless: list[Job] = []
        for job in jobs:
            content = await self._catalog.content_of(job.asset)
            if content is None:
                homeless.append(job)
            else:
                found.setdefault(content.id, (content, []))[1].append(job)
        return list(found.values()), homeless

    async def _piece(self, space: Space, content: ContentRow, jobs: Sequence[Job]) -> _Piece | None:
        """What is left to embed of *content*; None if nothing is (its jobs are ended here)."""
        now = await self._catalog.content(content.id)
        dirs = await self._catalog.dirs_of(content.id)
        if now is not None and space.name in now.live_spaces:
            # Embedded by a twin meanwhile; its points must learn our folder.
            await self._store.set_dirs(space.name, now.uuid, dirs)
            segments: tuple[Segment, ...] = ()
        else:
            segments = tuple(s for s in await self._catalog.segments(content.id) if s.text.strip())
        if now is None or not segments:
            for job in jobs:
                await self._outcomes.done(job)
            return None
        return _Piece(now, segments, tuple(jobs), dirs)

    async def _embed_pieces(self, space: Space, pieces: Sequence[_Piece]) -> None:
        try:
            await self._embed_group(space, pieces)
        except errors.MsearchError as error:
            await self._not_done(space, pieces, error)

    async def _not_done(self, space: Space, group: Sequence[_Piece], error: errors.MsearchError) -> None:
        """One bad passage must not cost its neighbours: a failing group is tried again file by file."""
        if len(group) > 1 and isinstance(error, errors.BadAsset):
            for piece in group:
                try:
                    await self._embed_group(space, [piece])
                except errors.MsearchError as own_error:
                    await self._not_done(space, [piece], own_error)
            return
        for piece in group:
            for job in piece.jobs:
                await self._outcomes.not_done(job, error)

    async def _embed_group(self, space: Space, group: Sequence[_Piece]) -> None:
        def intend(c: sqlite3.Connection) -> None:
            for piece in group:
                self._catalog.intend_in(c, space.name, piece.content.id)

        await self._outcomes.commit(intend)
        for points, texts, keys in _requests(space, group):
            vectors = await self._vectors.of(texts, keys, space=space, deadline_s=self._deadline_s)
            await self._store.upsert(space.name, points, vectors)

        def make_live(c: sqlite3.Connection) -> None:
            for piece in group:
                self._catalog.live_in(c, space.name, piece.content.id, len(piece.segments))
                for job in piece.jobs:
                    self._outcomes.done_in(c, job)

        await self._outcomes.commit(make_live)
        self._spaces.note_upserts(sum(len(piece.segments) for piece in group))


def _requests(space: Space, group: Sequence[_Piece]) -> Iterator[tuple[list[Point], list[str], list[bytes]]]:
    """Points, their texts and the keys of their vectors, at most PASSAGES_PER_REQUEST at a time."""
    points: list[Point] = []
    texts: list[str] = []
    keys: list[bytes] = []
    for piece in group:
        for segment in piece.segments:
            points.append(point_of(space, piece.content, segment, piece.dirs))
            texts.append(segment.text)
            keys.append(key_of(piece.content.content_hash, segment))
            if len(points) == PASSAGES_PER_REQUEST:
                yield points, texts, keys
                points, texts, keys = [], [], []
    if points:
        yield points, texts, keys


def point_of(space: Space, content: ContentRow, segment: Segment, dirs: tuple[int, ...]) -> Point:
    """The point of a segment: a pure function of content, space and segment, save for the folder list."""
    reference = PointRef(content.content_hash, segment.kind, segment.seq)
    payload = PointPayload(
        content=content.uuid,
        kind=segment.kind,
        seq=segment.seq,
        dirs=dirs,
        type_label=content.type_label,
        modality=content.modality.value,
        size=content.size,
        page=segment.page,
        t0_ms=segment.t0_ms,
        t1_ms=segment.t1_ms,
    )
    return Point(reference.id_in(space.name), payload)
