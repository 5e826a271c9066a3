"""Totals, open intents and what the vector store should hold: reads for status, start-up and verify."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from msearchd.domain.asset import AssetState, ContentId
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.space import SpaceName
from msearchd.store.catalog import contents, known
from msearchd.store.catalog.rows import ContentRow, Totals, segment_id, segment_of
from msearchd.store.catalog.segments import SQL

_CONTENTS_A_BATCH: Final = 5000


def totals(c: sqlite3.Connection) -> Totals:
    """Sizes of the index."""
    by_state = dict.fromkeys(AssetState, 0)
    for of_root in known.counts(c).values():
        for state, n in of_root.items():
            by_state[state] += n
    sizes = dict(c.execute(SQL["totals"]).fetchall())
    return Totals(
        assets=sum(by_state.values()),
        by_state=by_state,
        contents=sizes["contents"],
        segments=sizes["segments"],
        points={SpaceName(name): points for name, _, points in c.execute(SQL["space_counts"])},
    )


def open_puts(c: sqlite3.Connection) -> list[tuple[SpaceName, ContentId]]:
    """Puts begun and not known to be on the disk."""
    return [(SpaceName(space), ContentId(id_)) for space, id_ in c.execute(SQL["open_puts"])]


def open_sweeps(c: sqlite3.Connection) -> list[tuple[SpaceName, UUID]]:
    """Points still to be deleted."""
    return [(SpaceName(space), UUID(bytes=uuid)) for space, uuid in c.execute(SQL["open_sweeps"])]


def expected_points(c: sqlite3.Connection, space: SpaceName) -> int:
    """Points that should be in a space; 0 for an unknown one."""
    row = c.execute(SQL["expected_points"], (space,)).fetchone()
    return 0 if row is None else int(row[0])


def expected_contents(c: sqlite3.Connection, space: SpaceName, *, after: int) -> tuple[dict[UUID, int], int]:
    """A batch of contents that should be in a space with their points, and where to go on."""
    rows = c.execute(SQL["expected_contents"], (space, after, _CONTENTS_A_BATCH)).fetchall()
    return {UUID(bytes=uuid): points for _, uuid, points in rows}, rows[-1][0] if rows else after


def content_by_uuid(c: sqlite3.Connection, uuid: UUID) -> ContentRow | None:
    """The content that points name by *uuid*."""
    row = c.execute(SQL["content_by_uuid"], (uuid.bytes,)).fetchone()
    return None if row is None else contents.find(c, ContentId(row[0]))


def segments_of(c: sqlite3.Connection, places: Sequence[tuple[ContentId, SegmentKind, int]]) -> list[Segment | None]:
    """The segment of each place."""
    found: list[Segment | None] = []
    for place in places:
        id_ = segment_id(*place)
        row = c.execute(SQL["segments_between"], (id_, id_)).fetchone()
        found.append(None if row is None else segment_of(*row))
    return found
