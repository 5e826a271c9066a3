"""The embed step: passages, pictures or windows of sound of many files in one request, then one transaction that makes
them live.

Order of writes: intent rows → upsert (ids are pure, so again is harmless) → content live + job complete in ONE
transaction → intents cleared after the store's next flush. Killed anywhere in between, nothing visible is missing and
nothing invisible stays: the start redoes what has an intent.

What must be decoded is decoded a request at a time: a long recording costs no more memory than a short one. A file that
cannot be decoded fails alone, its neighbours never notice. A turn embeds about one request and gives the other jobs back:
a group of long files is minutes of work, and what somebody waits for must not stand behind it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.job import Job, Owed, Step
from msearchd.domain.media import KINDS_OF, OF_TEXT, Segment
from msearchd.domain.sample import Sample
from msearchd.domain.space import ModelKey, Point, PointPayload, PointRef, Space, Vectors
from msearchd.media.client import ChangedWhileReading
from msearchd.orchestrator.document_vectors import DocumentVectors, together
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.samples import PER_REQUEST, Sampler
from msearchd.orchestrator.spaces import Spaces
from msearchd.store.catalog import Catalog, ContentRow
from msearchd.store.vector_cache import key_of
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)

#: Every so many turns begin with the jobs of the worst priority, so that the back-fill keeps its eighth (see jobs.turns)
#: where long files of better ones come all the time.
_TURNS_OF_BEST: Final = 8

#: Says what is done of jobs that run.
Tell = Callable[[Mapping[Job, str]], None]
#: Has jobs shown as running while it is entered.
Noted = Callable[[Sequence[Job]], AbstractContextManager[Tell]]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A content to embed, and the jobs that wait for it (several files can have the same bytes)."""

    content: ContentRow
    segments: tuple[Segment, ...]
    jobs: tuple[Job, ...]
    dirs: tuple[int, ...]


@dataclass(slots=True)
class _Group:
    """Pieces that are embedded together, and what came of each. Owned by one `_embed_group`."""

    pieces: Sequence[_Piece]
    points: dict[int, int] = field(default_factory=dict)  # put so far, by content
    broken: dict[int, errors.MsearchError] = field(default_factory=dict)  # what cannot be decoded, by content

    def share_in(self, batch: Sequence[tuple[_Piece, Segment]]) -> dict[Job, str]:
        """The jobs of *batch*, and how much of each is done before it, in words: "40 of 200 places"."""
        begun = {piece.content.id: piece for piece, _ in batch}
        return {
            job: f"{self.points.get(content, 0):,} of {len(piece.segments):,} places"
            for content, piece in begun.items()
            for job in piece.jobs
        }


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
        sampler: Sampler | None = None,
        modality_of: Callable[[ModelKey], str] = lambda _: "text",
    ) -> None:
        """*sampler* decodes what is no text; *modality_of* says what a model embeds."""
        self._catalog = catalog
        self._outcomes = outcomes
        self._vectors = vectors
        self._store = store
        self._spaces = spaces
        self._locks = content_locks
        self._deadline_s = deadline_s
        self._sampler = sampler
        self._modality_of = modality_of
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
        modality = self._modality_of(model)
        by_content, homeless = await self._sort_by_content(in_order)
        for job in homeless:
            await self._outcomes.done(job)
        chosen, later = await self._choose(by_content, modality)
        if later:
            await self._outcomes.given_back(later)
        # Only of what is chosen: the other group in flight may have claimed the rest by now.
        async with self._locks.hold_all({content.content_hash for content, _ in chosen}):
            pieces = [
                piece
                for content, owing in chosen
                if (piece := await self._piece(space, content, owing, modality)) is not None
            ]
            if pieces:
                with noted([job for piece in pieces for job in piece.jobs]) as tell:
                    await self._embed_pieces(space, pieces, tell)

    async def _choose(
        self, owing: Sequence[tuple[ContentRow, list[Job]]], modality: str
    ) -> tuple[Sequence[tuple[ContentRow, list[Job]]], list[Job]]:
        """What fills a request, at least one content; and the jobs of all others, which were not looked at."""
        samples = 0
        for place, (content, _) in enumerate(owing):
            if samples >= PER_REQUEST[modality]:
                return owing[:place], [job for _, jobs in owing[place:] for job in jobs]
            samples += len(await self._eaten(content, modality))
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

    async def _eaten(self, content: ContentRow, modality: str) -> tuple[Segment, ...]:
        """The segments of *content* that a model of *modality* embeds."""
        kinds, is_text = KINDS_OF[modality], modality in OF_TEXT
        found = await self._catalog.segments(content.id)
        return tuple(s for s in found if s.kind in kinds and (not is_text or s.text.strip()))

    async def _piece(self, space: Space, content: ContentRow, jobs: Sequence[Job], modality: str) -> _Piece | None:
        """What is left to embed of *content*; None if nothing is (its jobs are ended here)."""
        now = await self._catalog.content(content.id)
        dirs = await self._catalog.dirs_of(content.id)
        if now is not None and space.name in now.live_spaces:
            # Embedded by a twin meanwhile; its points must learn our folder.
            await self._store.set_dirs(space.name, now.uuid, dirs)
            segments: tuple[Segment, ...] = ()
        else:
            segments = await self._eaten(content, modality)
        if now is None or not segments:
            for job in jobs:
                await self._outcomes.done(job)
            return None
        return _Piece(now, segments, tuple(jobs), dirs)

    async def _embed_pieces(self, space: Space, pieces: Sequence[_Piece], tell: Tell) -> None:
        try:
            await self._embed_group(space, pieces, tell)
        except errors.MsearchError as error:
            await self._not_done(space, pieces, error, tell)

    async def _not_done(self, space: Space, group: Sequence[_Piece], error: errors.MsearchError, tell: Tell) -> None:
        """One bad passage must not cost its neighbours: a failing group is tried again file by file."""
        if len(group) > 1 and isinstance(error, errors.BadAsset):
            for piece in group:
                try:
                    await self._embed_group(space, [piece], tell)
                except errors.MsearchError as own_error:
                    await self._not_done(space, [piece], own_error, tell)
            return
        for piece in group:
            for job in piece.jobs:
                await self._outcomes.not_done(job, error)

    async def _embed_group(self, space: Space, group: Sequence[_Piece], tell: Tell) -> None:
        def intend(c: sqlite3.Connection) -> None:
            for piece in group:
                self._catalog.intend_in(c, space.name, piece.content.id)

        await self._outcomes.commit(intend)
        work = _Group(group)
        for batch in _batches(group, at_most=PER_REQUEST[self._modality_of(space.model)]):
            tell(work.share_in(batch))
            await self._embed_batch(space, work, batch)

        def make_live(c: sqlite3.Connection) -> None:
            for piece in group:
                if piece.content.id in work.broken:
                    continue
                self._catalog.live_in(c, space.name, piece.content.id, work.points.get(piece.content.id, 0))
                for job in piece.jobs:
                    self._outcomes.done_in(c, job)

        await self._outcomes.commit(make_live)
        self._spaces.note_upserts(sum(work.points.values()))
        for piece in group:
            if (error := work.broken.get(piece.content.id)) is not None:
                await self._not_decoded(piece, error)

    async def _embed_batch(self, space: Space, work: _Group, batch: Sequence[tuple[_Piece, Segment]]) -> None:
        """Put the points of *batch*: those whose vectors are known at once, the others as their model says."""
        keys = [key_of(piece.content.content_hash, segment) for piece, segment in batch]
        if self._modality_of(space.model) in OF_TEXT:
            vectors = await self._vectors.of(
                [segment.text for _, segment in batch], keys, space=space, deadline_s=self._deadline_s
            )
            await self._put(space, work, batch, vectors)
            return
        known = await self._vectors.known(keys, space=space)
        if any(known):
            have = [(item, own) for item, own in zip(batch, known, strict=True) if own is not None]
            await self._put(space, work, [item for item, _ in have], together([own for _, own in have], space=space))
        unknown = [item for item, own in zip(batch, known, strict=True) if own is None]
        decoded = [
            (piece, segment, sample)
            for (piece, segment), sample in zip(unknown, await self._decoded(work, unknown), strict=True)
            if sample is not None and piece.content.id not in work.broken
        ]
        if decoded:
            keys = [key_of(piece.content.content_hash, segment) for piece, segment, _ in decoded]
            vectors = await self._vectors.of(
                [sample for _, _, sample in decoded], keys, space=space, deadline_s=self._deadline_s
            )
            await self._put(space, work, [(piece, segment) for piece, segment, _ in decoded], vectors)

    async def _decoded(self, work: _Group, batch: Sequence[tuple[_Piece, Segment]]) -> list[Sample | None]:
        """A sample for each; None where there is none, and the reason in `work.broken` where that is no end of a file."""
        found: list[Sample | None] = []
        for piece, own in groupby(batch, key=lambda item: item[0]):
            segments = [segment for _, segment in own]
            samples: list[Sample | None] = [None] * len(segments)
            if piece.content.id not in work.broken:
                try:
                    samples = await self._of_any(piece, segments)
                except errors.MsearchError as error:
                    work.broken[piece.content.id] = error
            found += samples
        return found

    async def _of_any(self, piece: _Piece, segments: Sequence[Segment]) -> list[Sample | None]:
        """Samples from the first of its files that can be opened: any copy will do. Raises as Sampler.samples."""
        if self._sampler is None:
            message = "this embed step has nobody who decodes"
            raise errors.Bug(message)
        for job in piece.jobs[:-1]:
            with contextlib.suppress(errors.NotFound, errors.RetryLater, errors.Misconfigured):
                return await self._sampler.samples(piece.content, job, segments)
        return await self._sampler.samples(piece.content, piece.jobs[-1], segments)

    async def _put(self, space: Space, work: _Group, batch: Sequence[tuple[_Piece, Segment]], vectors: Vectors) -> None:
        points = [point_of(space, piece.content, segment, piece.dirs) for piece, segment in batch]
        # What was cut otherwise before may have had more passages: none of them stays. Found until this moment.
        begun = {piece.content.uuid: piece.content for piece, _ in batch if piece.content.id not in work.points}
        if outdated := [uuid for uuid, content in begun.items() if space.name in content.placed_spaces]:
            await self._store.delete_contents(space.name, outdated)
        await self._store.upsert(space.name, points, vectors)
        for piece, _ in batch:
            work.points[piece.content.id] = work.points.get(piece.content.id, 0) + 1

    async def _not_decoded(self, piece: _Piece, error: errors.MsearchError) -> None:
        for job in piece.jobs:
            if isinstance(error, ChangedWhileReading):
                # Other bytes than those identified: begin again with them.
                again = Owed(job.asset, Step.IDENTIFY, priority=job.priority)
                await self._outcomes.done(job, lambda _, owed=again: [owed])  # type: ignore[misc]
            else:
                await self._outcomes.not_done(job, error)


def _batches(group: Sequence[_Piece], *, at_most: int) -> Iterator[list[tuple[_Piece, Segment]]]:
    """Places of all pieces, *at_most* in one request."""
    places = ((piece, segment) for piece in group for segment in piece.segments)
    while batch := list(islice(places, at_most)):
        yield batch


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
