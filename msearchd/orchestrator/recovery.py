"""Catalog and vector store agree: at start by intents and exact counts, on demand by a full comparison.

In: what the catalog expects, what the store holds. Out: orphans deleted, missing contents owed again, a report.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetState
from msearchd.domain.job import Owed, Priority, Step
from msearchd.domain.space import Space, SpaceName
from msearchd.jobs.queue import JobQueue
from msearchd.store.catalog import Catalog, ContentRow
from msearchd.store.catalog.space_book import Phase, SpaceBook
from msearchd.store.vector_store import VectorStore

log = structlog.get_logger(__name__)

_DELETE_GROUP: Final = 200


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """What a comparison of one space found and repaired. Clean: nothing was wrong."""

    space: SpaceName
    points_expected: int
    points_found: int
    orphans: int = 0  # contents with points that nothing live refers to: deleted
    missing: int = 0  # live contents without all their points: owed again

    @property
    def is_clean(self) -> bool:
        """True where nothing had to be repaired."""
        return self.orphans == 0 and self.missing == 0 and self.points_expected == self.points_found


class Recovery:
    """Run at start, before anything is claimed; `look` and `compare` at any time."""

    def __init__(self, *, database: Database, catalog: Catalog, queue: JobQueue, store: VectorStore) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._store = store
        self._book = SpaceBook(database)

    async def at_start(self) -> list[SpaceReport]:
        """Redo what was begun and not finished; compare counts; compare contents only where counts differ."""
        reports = []
        await self._drop_unknown()
        for space in await self._catalog.spaces():
            await self._store.ensure(space)
            await self._undo_unfinished(space.name)
            expected, found = await self._catalog.expected_points(space.name), await self._store.count(space.name)
            if expected != found:
                log.warning("index and catalog differ", space=space.name, expected=expected, found=found)
                reports.append(await self.compare(space))
            else:
                reports.append(SpaceReport(space.name, expected, found))
        await self.finish_sweeps()
        return reports

    async def _drop_unknown(self) -> None:
        """Spaces of a database that was lost: nobody will ever ask them, and their contents are embedded again."""
        known = {space.name for space in await self._catalog.spaces()}
        for name in await self._store.spaces():
            if name not in known:
                log.warning("space dropped", space=name, reason="the catalog does not know it")
                await self._store.drop(name)

    async def look(self, space: Space) -> SpaceReport:
        """Compare one space content by content. Changes nothing."""
        return (await self._differences(space))[0]

    async def compare(self, space: Space) -> SpaceReport:
        """Compare one space content by content. Orphans are deleted, contents with missing points are owed again."""
        report, orphans, wrong = await self._differences(space)
        for start in range(0, len(orphans), _DELETE_GROUP):
            await self._store.delete_contents(space.name, orphans[start : start + _DELETE_GROUP])
        for start in range(0, len(wrong), _DELETE_GROUP):
            group_of = wrong[start : start + _DELETE_GROUP]
            # Too many points (an interrupted re-chunking) and too few are repaired alike: away with them, embed again.
            await self._store.delete_contents(space.name, group_of)
            await self._owe_again(space, group_of)
        if orphans or wrong:
            await self._store.flush()
            log.warning("index repaired", space=space.name, orphans=len(orphans), missing=len(wrong))
        return report

    async def _differences(self, space: Space) -> tuple[SpaceReport, list[UUID], list[UUID]]:
        """(report, contents whose points nothing refers to, live contents without exactly their points)."""
        expected: dict[UUID, int] = {}
        async for group in self._catalog.expected_contents(space.name):
            expected.update(group)
        found: dict[UUID, int] = {}
        async for group in self._store.contents(space.name):
            for uuid, count in group.items():
                found[uuid] = found.get(uuid, 0) + count
        # Contents in work have points that are not live yet: not orphans.
        in_work = await self._in_work(space.name)
        doubtful = [uuid for uuid in found if uuid not in expected and uuid not in in_work]
        # Read before the points were, `expected` lacks what became live since: that is no orphan.
        orphans = [uuid for uuid in doubtful if not await self._is_live(space.name, uuid)]
        uneven = [uuid for uuid, count in expected.items() if found.get(uuid, 0) != count and uuid not in in_work]
        wrong = [
            uuid for uuid in uneven if await self._is_live(space.name, uuid)
        ]  # swept meanwhile: nothing is missing
        report = SpaceReport(space.name, sum(expected.values()), sum(found.values()), len(orphans), len(wrong))
        return report, orphans, wrong

    async def _is_live(self, space: SpaceName, uuid: UUID) -> bool:
        content = await self._catalog.content_by_uuid(uuid)
        return content is not None and space in content.placed_spaces

    async def _in_work(self, space: SpaceName) -> set[UUID]:
        found = set()
        for name, content_id in await self._catalog.open_intents():
            content = await self._catalog.content(content_id) if name == space else None
            if content is not None and space not in content.live_spaces:
                found.add(content.uuid)
        return found

    async def _owe_again(self, space: Space, uuids: Sequence[UUID]) -> None:
        for uuid in uuids:
            content = await self._catalog.content_by_uuid(uuid)
            if content is not None:
                await self._database.write(lambda c, found=content: self._owe_in(c, space, found))  # type: ignore[misc]
        self._queue.notify()

    def _owe_in(self, c: sqlite3.Connection, space: Space, content: ContentRow) -> None:
        self._catalog.not_live_in(c, space.name, content.id)
        record = self._book.record_in(c, space.name)
        if record is None or record.target is None or not (record.is_filling or record.phase is Phase.SERVING):
            return  # kept for a way back, and filled again on that way
        # Every file that shows it: one that went took what is owed with it, and left its copies without.
        for asset in self._catalog.assets_of_in(c, content.id):
            self._queue.enqueue_in(c, [Owed(asset, Step.EMBED, str(record.target), Priority.NORMAL)])
            self._catalog.set_state_in(c, asset, AssetState.PENDING)

    async def _undo_unfinished(self, space: SpaceName) -> None:
        """Points of contents that never became live go; their embed jobs are still in the queue and put them again.

        What is live and was not known to be flushed is flushed now.
        """
        unfinished: list[ContentRow] = []
        settled = []
        for name, content_id in await self._catalog.open_intents():
            if name != space:
                continue
            settled.append(content_id)
            content = await self._catalog.content(content_id)
            if content is not None and space not in content.live_spaces:
                unfinished.append(content)
        for start in range(0, len(unfinished), _DELETE_GROUP):
            group = unfinished[start : start + _DELETE_GROUP]
            await self._database.write(lambda c, rows=group: self._not_live_in(c, space, rows))  # type: ignore[misc]
            await self._store.delete_contents(space, [row.uuid for row in group])
        if settled:
            await self._store.flush()
            await self._database.write(lambda c: self._catalog.settle_intents_in(c, space, settled))
            log.info(
                "unfinished work undone",
                space=space,
                contents=len(unfinished),
                confirmed=len(settled) - len(unfinished),
            )

    def _not_live_in(self, c: sqlite3.Connection, space: SpaceName, rows: Sequence[ContentRow]) -> None:
        for row in rows:
            self._catalog.not_live_in(c, space, row.id)

    async def finish_sweeps(self) -> int:
        """Delete the points of contents that were forgotten; return how many contents.

        A file with the same bytes may come meanwhile: what is put for it is not swept, what was swept is put again.
        """
        total = 0
        for space in await self._catalog.spaces():
            # Asked for again before each group: an intent to put replaces that to sweep, and the store keeps the order.
            while uuids := await self._sweeps_of(space.name):
                await self._store.delete_contents(space.name, uuids)
                await self._owe_again(space, [uuid for uuid in uuids if await self._is_live(space.name, uuid)])
                await self._store.flush()
                await self._database.write(
                    lambda c, name=space.name, gone=uuids: self._catalog.settle_sweeps_in(c, name, gone)  # type: ignore[misc]
                )
                total += len(uuids)
        return total

    async def _sweeps_of(self, space: SpaceName) -> list[UUID]:
        return [uuid for name, uuid in await self._catalog.open_sweeps() if name == space][:_DELETE_GROUP]
