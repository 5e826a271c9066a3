"""The transcribe step: speech of a sound file, portion by portion, each committed by itself.

In: a job of a file with sound. Out: TRANSCRIPT segments, found by words as soon as their portion is committed; the EMBED of
text at the end. Killed in the middle of three hours, it goes on with the portion that it was in.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

import structlog

from msearchd import errors
from msearchd.domain.job import Job, Owed, Step
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.sample import TimedText
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool
from msearchd.media import speech
from msearchd.media.client import ChangedWhileReading, Extractors
from msearchd.orchestrator import plan
from msearchd.orchestrator.at_hand import AskForScan, asset_at_hand, vanishing
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.steps import progress
from msearchd.store.catalog import AssetRow, Catalog, ContentRow

log = structlog.get_logger(__name__)


class TranscribeStep:
    """One per daemon; owns nothing. *readers* are workers of their own: reading text never waits for them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        outcomes: Outcomes,
        readers: Extractors,
        pool: Pool,
        models: Callable[[], plan.Models],
        content_locks: KeyedLocks,
        ask_for_scan: AskForScan,
        deadline_s: float,
    ) -> None:
        self._catalog = catalog
        self._outcomes = outcomes
        self._readers = readers
        self._pool = pool
        self._models = models
        self._locks = content_locks
        self._ask_for_scan = ask_for_scan
        self._deadline_s = deadline_s

    async def run(self, job: Job) -> None:
        """Write down what is left of the sound; then its text is owed to the models of text. Raises MsearchError."""
        try:
            await self._run(job)
        except (errors.BadAsset, errors.Misconfigured):
            # What else is known of the file, its tags and what was heard so far, is searchable by meaning all the same.
            content = await self._catalog.content_of(job.asset)
            if content is not None:
                await self._outcomes.also(self._text_owed(job, content))
            raise

    async def _run(self, job: Job) -> None:
        asset = await asset_at_hand(self._catalog, job)
        content = await self._catalog.content_of(job.asset)
        if asset is None or content is None:
            await self._outcomes.done(job)
            return
        async with self._locks.hold((content.content_hash, "speech")):  # its sound may be embedded meanwhile
            content = await self._catalog.content(content.id) or content
            try:
                if not content.is_heard:
                    await self._hear(job, asset, content)
            except ChangedWhileReading:
                again = Owed(job.asset, Step.IDENTIFY, priority=job.priority)
                await self._outcomes.done(job, lambda _: [again])
                return

            def commit(c: sqlite3.Connection) -> list[Owed]:
                return self._text_owed(job, self._catalog.content_in(c, content.id))

            await self._outcomes.done(job, commit)

    async def _hear(self, job: Job, asset: AssetRow, content: ContentRow) -> None:
        known = await self._catalog.segments(content.id)
        windows = [(s.t0_ms or 0, s.t1_ms or 0) for s in known if s.kind is SegmentKind.AUDIO]
        # What lies behind the last commit was written by a life that ended before it.
        heard = [s for s in known if s.kind is SegmentKind.TRANSCRIPT and (s.t0_ms or 0) < content.heard_until_ms]
        portions = speech.portions(windows, from_ms=content.heard_until_ms)
        for start_ms, end_ms in portions:
            pieces = await self._portion(ModelKey(job.target), asset, content, start_ms, end_ms)
            heard += speech.passages(pieces, first_seq=len(heard))
            await self._commit(content, heard, until_ms=end_ms, is_complete=end_ms == portions[-1][1])
        if not portions:
            await self._commit(content, heard, until_ms=content.heard_until_ms, is_complete=True)

    async def _portion(
        self, model: ModelKey, asset: AssetRow, content: ContentRow, start_ms: int, end_ms: int
    ) -> list[TimedText]:
        """What is said from *start_ms* to *end_ms*, in times of the whole sound; [] past the end of a cut-off file."""
        with vanishing(asset, self._ask_for_scan):
            sounds = await self._readers.sounds(
                asset.path, asset.identified(content), rate=speech.SPEECH_RATE, spans=[(start_ms, end_ms)]
            )
        pieces: list[TimedText] = []
        for sound in sounds:
            told = self._pool.transcribe(sound, model=model, lane=Lane.BULK, deadline_s=self._deadline_s)
            async with contextlib.aclosing(told) as found:
                async for piece in found:
                    # A model may guess an end beyond the sound.
                    t0_ms, t1_ms = (min(start_ms + max(0, t), end_ms) for t in (piece.t0_ms, piece.t1_ms))
                    pieces.append(TimedText(t0_ms, max(t0_ms, t1_ms), piece.text))
        return pieces

    async def _commit(self, content: ContentRow, heard: list[Segment], *, until_ms: int, is_complete: bool) -> None:
        await self._outcomes.commit(
            lambda c: self._catalog.heard_in(c, content.id, heard, until_ms=until_ms, is_complete=is_complete)
        )
        log.debug("speech written down", content=content.id, until_s=until_ms / 1000, passages=len(heard))

    def _text_owed(self, job: Job, content: ContentRow) -> list[Owed]:
        steps = plan.after_reading(progress(content, ()), text_models=self._models().of_text())
        return [Owed(job.asset, step, target, job.priority) for step, target in steps]
