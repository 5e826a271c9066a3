"""Spaces side by side: which answers, which is filled beside it, which are kept, and by which key jobs name each.

In: moves that somebody decided on (`*_in`, for the caller's transactions). Out: records. Of each modality at most one space
answers: an index holds it.
"""

from __future__ import annotations

import enum
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msearchd.aio.sqlite import Database, named_queries
from msearchd.domain.asset import AssetId, AssetState, ContentId
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.store.catalog import contents, tree
from msearchd.store.catalog.rows import KIND_CODES

SQL: Final = named_queries("msearchd.store.sql", "spaces.sql")

_KIND_OF: Final = {"image": SegmentKind.IMAGE, "audio": SegmentKind.AUDIO, "page": SegmentKind.PAGE}


class Phase(enum.StrEnum):
    """Where a space stands; all but SERVING are equal to the CHECK of the table."""

    SERVING = "serving"  # answers questions
    BUILDING = "building"  # is filled beside the one that answers, and takes its place once it holds as much
    WAITING = "waiting"  # the settings name its model; somebody has to say yes to the work
    DECLINED = "declined"  # the settings name its model; somebody said no, or went back
    KEPT = "kept"  # answered once, or would have; for a way back, until its time is over


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRecord:
    """A space and where it stands. `since_ms`: in this phase (UTC)."""

    space: Space
    modality: str
    phase: Phase
    since_ms: int
    is_filling: bool  # what it lacks is embedded
    target: ModelKey | None  # the key by which jobs name it; None: nothing makes its vectors now
    made_by: str  # settings of its model as JSON; "" unknown
    contents: int  # live in it
    points: int

    @property
    def name(self) -> SpaceName:
        """Its name."""
        return self.space.name


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a space would still have to embed: `samples` are passages, pictures or windows of sound."""

    contents: int
    samples: int


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SpaceBook:
    """Reads and writes the states of spaces. Shares the catalog's database."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = _wall_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    # -- reads --------------------------------------------------------------------------------------------------------

    async def records(self) -> list[SpaceRecord]:
        """All spaces, oldest first."""
        return await self._database.read(self.records_in)

    def records_in(self, c: sqlite3.Connection) -> list[SpaceRecord]:
        """All spaces, oldest first."""
        return [_record(*row) for row in c.execute(SQL["records"])]

    def record_in(self, c: sqlite3.Connection, name: SpaceName) -> SpaceRecord | None:
        """One space; None if it is not known."""
        row = c.execute(SQL["record"], (name,)).fetchone()
        return None if row is None else _record(*row)

    async def by_target(self, target: ModelKey) -> Space | None:
        """The space that jobs of *target* mean, with *target* as its model; None where none is known yet."""
        row = await self._database.read(lambda c: c.execute(SQL["by_target"], (target,)).fetchone())
        return None if row is None else _space(*row)

    async def lacking(self, record: SpaceRecord) -> Lacking:
        """What the space would still have to embed. Reads the rows of all contents: not for every second."""
        return await self._database.read(lambda c: self.lacking_in(c, record.name, record.modality))

    def lacking_in(self, c: sqlite3.Connection, name: SpaceName, modality: str) -> Lacking:
        """As `lacking`, in a transaction; a space that is not there yet lacks everything."""
        if (kind := _KIND_OF.get(modality)) is None:
            found = c.execute(SQL["lacking_text"], (name,)).fetchone()
        else:
            found = c.execute(SQL["lacking_kind"], (name, KIND_CODES[kind])).fetchone()
        return Lacking(int(found[0]), int(found[1]))

    def behind_in(
        self, c: sqlite3.Connection, shown: SpaceName, held: SpaceName, after: ContentId, *, limit: int
    ) -> list[ContentId]:
        """Contents that a file shows and *shown* finds, and that *held* would not find as they are now; by id."""
        return [ContentId(row[0]) for row in c.execute(SQL["behind"], (shown, held, after, limit))]

    async def some_texts(self, count: int) -> list[str]:
        """About *count* passages from all over the index."""

        def read(c: sqlite3.Connection) -> list[str]:
            last = c.execute(SQL["last_segment"]).fetchone()[0] or 0
            found: list[str] = []
            for part in range(8):
                rows = c.execute(SQL["some_texts"], (last * part // 8, (count + 7) // 8))
                found += [str(row[0]) for row in rows]
            return list(dict.fromkeys(found))[:count]

        return await self._database.read(read)

    # -- moves --------------------------------------------------------------------------------------------------------

    def put_in(self, c: sqlite3.Connection, space: Space, *, modality: str, made_by: str) -> None:
        """Remember a space by whose model jobs name it; twice is once.

        A new one is WAITING, or SERVING and filled where nothing answers yet.
        """
        is_new = self.record_in(c, space.name) is None
        if is_new:
            contents.put_space(c, space, modality=modality, now_ms=self._now_ms())
            c.execute(SQL["set_phase"], (space.name, Phase.WAITING, self._now_ms()))
        c.execute(SQL["release_target"], (space.model,))
        c.execute(SQL["retarget"], (space.name, space.model))
        if made_by:
            c.execute(SQL["note_maker"], (space.name, made_by))
        if is_new and contents.active_space(c, modality) is None:
            self.serve_in(c, space.name)
            self.fill_in(c, space.name)

    def target_in(self, c: sqlite3.Connection, modality: str, targets: Mapping[SpaceName, ModelKey]) -> None:
        """From now on jobs name the spaces of *modality* by these keys; those left out cannot be filled."""
        c.execute(SQL["untarget"], (modality,))
        for name, target in targets.items():
            c.execute(SQL["retarget"], (name, target))

    def serve_in(self, c: sqlite3.Connection, name: SpaceName) -> None:
        """It answers from this commit on; what answered before is KEPT and filled no more."""
        record = self.record_in(c, name)
        if record is None or record.phase is Phase.SERVING:
            return
        c.execute(SQL["retire"], (record.modality, self._now_ms()))
        c.execute(SQL["promote"], (name, self._now_ms()))

    def set_phase_in(self, c: sqlite3.Connection, name: SpaceName, phase: Phase) -> None:
        """What it is while it does not answer; only a BUILDING one is filled."""
        c.execute(SQL["set_phase"], (name, phase, self._now_ms()))
        self.fill_in(c, name, is_filling=phase is Phase.BUILDING)

    def fill_in(self, c: sqlite3.Connection, name: SpaceName, *, is_filling: bool = True) -> None:
        """Whether what it lacks is embedded."""
        c.execute(SQL["set_filling"], (name, is_filling))

    def unread_in(
        self, c: sqlite3.Connection, after: ContentId, *, limit: int
    ) -> list[tuple[ContentId, AssetId | None]]:
        """Texts are to be read again: (content, a file of it, pending now; None where all are left alone), by id."""
        found = c.execute(SQL["texts_read"], (after, limit)).fetchall()
        for content, asset in found:
            if asset is not None:
                c.execute(SQL["unread"], (content,))
                tree.set_state(c, AssetId(asset), AssetState.PENDING, "")
        return [(ContentId(content), None if asset is None else AssetId(asset)) for content, asset in found]

    def forget_in(self, c: sqlite3.Connection, name: SpaceName) -> None:
        """Its points are dropped: it is not known any more."""
        contents.forget_space(c, name)


def _record(
    name: str, model: str, fingerprint: str, dim: int, distance: str, multi: int, sparse: int, modality: str, is_active: int,
    phase: str, since_ms: int, is_filling: int, target: str, made_by: str, held: int, points: int,
) -> SpaceRecord:  # fmt: skip
    return SpaceRecord(
        space=_space(name, model, fingerprint, dim, distance, multi, sparse),
        modality=modality,
        phase=Phase.SERVING if is_active else Phase(phase),
        since_ms=since_ms,
        is_filling=bool(is_filling),
        target=ModelKey(target) if target else None,
        made_by=made_by,
        contents=held,
        points=points,
    )


def _space(name: str, model: str, fingerprint: str, dim: int, distance: str, multi: Any, sparse: Any) -> Space:
    return Space(SpaceName(name), ModelKey(model), fingerprint, dim, distance, bool(multi), bool(sparse))
