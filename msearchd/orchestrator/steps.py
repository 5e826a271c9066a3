"""One step of one asset, top to bottom: read, then commit everything that came of it in one transaction.

In: a claimed job. Out: rows, and the steps owed next. Raises MsearchError; the runner decides what becomes of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable

from msearchd import errors
from msearchd.domain.job import Job, Owed, Step
from msearchd.domain.media import Extraction, Identified, SegmentKind
from msearchd.media.client import ChangedWhileReading, Extractors
from msearchd.media.registry import skip_reason, steps_for
from msearchd.orchestrator import plan
from msearchd.orchestrator.at_hand import AskForScan, asset_at_hand, vanishing
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.settings import ExtractSettings
from msearchd.store.catalog import AssetRow, Catalog, ContentRow
from msearchd.store.vector_store import VectorStore

Read = Callable[["AssetRow", "ContentRow", Identified], Awaitable[Extraction | None]]


class Steps:
    """identify, extract, ocr and relocate. Owns nothing but the locks that keep equal bytes from being read twice."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        outcomes: Outcomes,
        extractors: Extractors,
        slow_extractors: Extractors,
        store: VectorStore,
        settings: ExtractSettings,
        models: Callable[[], plan.Models],
        content_locks: KeyedLocks,
        ask_for_scan: AskForScan,
    ) -> None:
        self._catalog = catalog
        self._outcomes = outcomes
        self._extractors = extractors
        self._slow_extractors = slow_extractors  # a scanned book must not keep a saved note waiting
        self._store = store
        self._settings = settings
        self._models = models
        self._locks = content_locks
        self._ask_for_scan = ask_for_scan

    async def identify(self, job: Job) -> None:
        """Stat, hash, type; small files are read in the same visit. Plans what is owed next."""
        asset = await asset_at_hand(self._catalog, job)
        if asset is None:
            await self._outcomes.done(job)
            return
        with vanishing(asset, self._ask_for_scan):
            identified, extraction = await self._extractors.identify_extract(asset.path)

        def commit(c: sqlite3.Connection) -> list[Owed]:
            content = self._catalog.identified_in(c, job.asset, identified)
            if extraction is not None and not content.is_extracted:
                self._catalog.extracted_in(c, content.id, extraction)
                content = self._catalog.content_in(c, content.id)
            owed = self._next(job, content, identified)
            if content.placed_spaces:
                # Known bytes at a new place: its points must learn this folder too.
                owed.append(Owed(job.asset, Step.RELOCATE, priority=job.priority))
            return owed

        await self._outcomes.done(job, commit, skipped=skip_reason(identified, self._settings))

    async def extract(self, job: Job) -> None:
        """Text and metadata of a document."""
        await self._read_content(job, self._extract_text)

    async def ocr(self, job: Job) -> None:
        """Text in pixels."""
        try:
            await self._read_content(job, self._read_pixels)
        except (errors.BadAsset, errors.Misconfigured):
            # What the file has besides pixels is searchable all the same.
            await self._embed_without_ocr(job)
            raise

    async def relocate(self, job: Job) -> None:
        """Tell the points of the asset's content which folders hold it now."""
        content = await self._catalog.content_of(job.asset)
        if content is not None:
            async with self._locks.hold(content.content_hash):
                # Read again: who held the lock may have put the points, with the folders of before.
                content = await self._catalog.content(content.id) or content
                dirs = await self._catalog.dirs_of(content.id)
                for space in content.placed_spaces:
                    await self._store.set_dirs(space, content.uuid, dirs)
        await self._outcomes.done(job)

    # -- parts ----------------------------------------------------------------------------------------------------------

    async def _extract_text(self, asset: AssetRow, content: ContentRow, identified: Identified) -> Extraction | None:
        if content.is_extracted:
            return None
        return await self._extractors.extract(asset.path, identified)

    async def _read_pixels(self, asset: AssetRow, content: ContentRow, identified: Identified) -> Extraction | None:
        if not content.needs_ocr:
            return None
        return await self._slow_extractors.ocr(asset.path, identified, content.ocr_pages)

    async def _read_content(self, job: Job, read: Read) -> None:
        asset = await asset_at_hand(self._catalog, job)
        content = await self._catalog.content_of(job.asset)
        if asset is None or content is None:
            await self._outcomes.done(job)
            return
        identified = asset.identified(content)
        async with self._locks.hold(content.content_hash):
            content = await self._catalog.content(content.id) or content
            try:
                with vanishing(asset, self._ask_for_scan):
                    extraction = await read(asset, content, identified)
            except ChangedWhileReading:
                # Other bytes than those identified: begin again with them.
                again = Owed(job.asset, Step.IDENTIFY, priority=job.priority)
                await self._outcomes.done(job, lambda _: [again])
                return

            def commit(c: sqlite3.Connection) -> list[Owed]:
                if extraction is not None:
                    self._catalog.extracted_in(
                        c, content.id, extraction, part=SegmentKind.OCR if job.step is Step.OCR else None
                    )
                return self._next(job, self._catalog.content_in(c, content.id), identified)

            await self._outcomes.done(job, commit)

    async def _embed_without_ocr(self, job: Job) -> None:
        content = await self._catalog.content_of(job.asset)
        if content is None:
            return
        owed = [
            Owed(job.asset, step, target, job.priority)
            for step, target in plan.after_reading(progress(content, ()), text_models=self._models().of_text())
        ]
        await self._outcomes.also(owed)

    def _next(self, job: Job, content: ContentRow, identified: Identified) -> list[Owed]:
        state, models = progress(content, steps_for(identified, self._settings)), self._models()
        if job.step is Step.OCR:  # its pictures are owed since they were read
            steps = plan.after_reading(state, text_models=models.of_text())
        else:
            steps = plan.steps_owed(state, models=models)
        return [Owed(job.asset, step, target, job.priority) for step, target in steps]


def progress(content: ContentRow, readable_steps: tuple[Step, ...]) -> plan.ContentProgress:
    """How far a content is, as the plan wants to know it."""
    return plan.ContentProgress(
        readable_steps=readable_steps,
        is_extracted=content.is_extracted,
        wants_ocr=content.wants_ocr,
        has_ocr=content.has_ocr,
        segments=content.segments,
        embedded_by=content.live_models,
        samples=content.samples,
        is_heard=content.is_heard,
    )
