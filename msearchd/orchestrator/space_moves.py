"""How a move of a space is made: each is one transaction, and the switch looks in its own whether a hit would be lost.

In: the spaces of a modality, and what was decided. Out: rows. What to do, and when, is model_change's to say.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Final

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.asset import ContentId
from msearchd.domain.job import Owed, Priority, Step
from msearchd.domain.space import ModelKey, SpaceName
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.model_lines import Line
from msearchd.orchestrator.model_plan import Act
from msearchd.store.catalog.space_book import Phase, SpaceBook, SpaceRecord

#: Contents looked at in one transaction: about 5 ms.
_GROUP: Final = 500
_JOBS_END_S: Final = 60.0


class SpaceMoves:
    """Makes moves; remembers how far two spaces were compared."""

    def __init__(self, *, database: Database, queue: JobQueue, book: SpaceBook) -> None:
        self._database = database
        self._queue = queue
        self._book = book
        self.arrears: Arrears | None = None
        # So far the second holds what the first shows.
        self._compared: dict[tuple[SpaceName, SpaceName], ContentId] = {}

    def forget(self) -> None:
        """Spaces went: begin every comparison anew."""
        self._compared.clear()

    async def make(self, line: Line, record: SpaceRecord, act: Act) -> bool:
        """Make a move that keeps all points. False, and nothing is changed, where a switch would lose a hit."""
        return await self._database.write(lambda c: self._make_in(c, line, record, act))

    async def go_back(self, serving: SpaceRecord | None, back: SpaceRecord) -> None:
        """*back* answers and is filled; what answered is declined."""

        def move(c: sqlite3.Connection) -> None:
            self._book.serve_in(c, back.name)
            self._book.fill_in(c, back.name)
            if serving is not None:
                self._book.set_phase_in(c, serving.name, Phase.DECLINED)

        await self._database.write(move)

    async def read_again(self) -> int:
        """Texts were cut otherwise: each is read and cut again, a file of each content; returns how many.

        What is there stays found until then. Killed in between, some are read again for nothing.
        """
        total, after = 0, ContentId(0)
        while batch := await self._database.write(lambda c, at=after: self._read_again_in(c, at)):  # type: ignore[misc]
            total, after = total + len(batch), batch[-1]
            self._queue.notify()
        return total

    def _read_again_in(self, c: sqlite3.Connection, after: ContentId) -> list[ContentId]:
        batch = self._book.unread_in(c, after, limit=_GROUP)
        self._queue.enqueue_in(
            c, [Owed(asset, Step.IDENTIFY, priority=Priority.BACKFILL) for _, asset in batch if asset is not None]
        )
        return [content for content, _ in batch]

    async def covers(self, shown: SpaceRecord, held: SpaceRecord) -> bool:
        """True once *held* has all that *shown* finds, but for what failed for good. Goes on where it stopped last time."""
        pair = shown.name, held.name
        began = after = self._compared.get(pair, ContentId(0))
        while True:
            batch, is_waiting = await self._database.write(
                lambda c, at=after: self._lacks_in(c, shown, held, at)  # type: ignore[misc]
            )
            if is_waiting:
                self._compared[pair] = after
                return False
            if batch:
                after = batch[-1]
                continue
            if began == 0:
                return True
            began = after = ContentId(0)

    async def until_no_job_runs(self, target: ModelKey) -> None:
        """Return once no job of *target* is at work. Raises RetryLater where that takes a minute."""
        try:
            async with asyncio.timeout(_JOBS_END_S):
                while any(row.target == target for row in await self._queue.running()):
                    await self._queue.wait_change(self._queue.changes_seen())
        except TimeoutError as error:
            message = f"files are being embedded with {target!r}"
            hint = "ask again when they are done, or: msearch pause"
            raise errors.RetryLater(message, after_s=10, hint=hint) from error

    async def drop(self, line: Line, record: SpaceRecord) -> None:
        """The catalog forgets it; one that the settings want is remembered as declined, without points."""

        def forget(c: sqlite3.Connection) -> None:
            self._book.forget_in(c, record.name)
            if record.name == line.wanted:  # else it would begin again by itself
                self._book.put_in(c, record.space, modality=record.modality, made_by=record.made_by)
                self._book.set_phase_in(c, record.name, Phase.DECLINED)

        await self._database.write(forget)
        self.forget()

    def _make_in(self, c: sqlite3.Connection, line: Line, record: SpaceRecord, act: Act) -> bool:
        match act:
            case Act.SERVE:
                serving = line.serving
                if serving is not None and serving.target is not None and self._is_behind_in(c, serving, record):
                    return False  # something came meanwhile; the next look finds it
                self._book.serve_in(c, record.name)
            case Act.BUILD:
                self._book.set_phase_in(c, record.name, Phase.BUILDING)
            case Act.FILL:
                self._book.fill_in(c, record.name)
            case Act.WAIT:
                self._book.set_phase_in(c, record.name, Phase.WAITING)
            case Act.KEEP:
                self._book.set_phase_in(c, record.name, Phase.KEPT)
        return True

    def _is_behind_in(self, c: sqlite3.Connection, serving: SpaceRecord, record: SpaceRecord) -> bool:
        """In the transaction of the switch: whether a hit would be lost by it."""
        after = ContentId(0)
        while True:
            batch, is_waiting = self._lacks_in(c, serving, record, after)
            if not batch or is_waiting:
                return is_waiting
            after = batch[-1]

    def _lacks_in(
        self, c: sqlite3.Connection, shown: SpaceRecord, held: SpaceRecord, after: ContentId
    ) -> tuple[list[ContentId], bool]:
        """(contents looked at, whether one of them is on its way into *held*). Where nobody owes it, it is owed here."""
        batch = self._book.behind_in(c, shown.name, held.name, after, limit=_GROUP)
        if not batch or held.target is None or self.arrears is None:
            return batch, bool(batch)
        waiting, owed = self.arrears.owe_in(c, held.target, batch)
        return batch, waiting + owed > 0
