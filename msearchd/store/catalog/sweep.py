"""What nothing refers to goes, after the grace: contents without a visible file, files that are gone, empty folders.

In: now and the grace. Out: rows deleted, and sweep intents that outlive a crash until the store has deleted the points.
Order: `forget_content` commits the intent and drops the rows -> the store deletes -> flush -> `settle_sweeps`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from uuid import UUID

from msearchd.domain.asset import AssetId, ContentId
from msearchd.domain.space import SpaceName
from msearchd.store.catalog import contents, paths, segments
from msearchd.store.catalog.rows import ContentRow
from msearchd.store.catalog.segments import SQL


def orphans_due(c: sqlite3.Connection, *, before_ms: int, limit: int) -> list[ContentRow]:
    """Contents that no visible file has held since *before_ms* or earlier, longest first."""
    due = [ContentId(id_) for (id_,) in c.execute(SQL["orphans_due"], (before_ms, limit)).fetchall()]
    return [contents.content(c, id_) for id_ in due]


def forget_content(c: sqlite3.Connection, content_id: ContentId, *, now_ms: int) -> tuple[SpaceName, ...] | None:
    """Forget an orphan with its segments, words and gone files; says in which spaces its points must be deleted.

    None, and nothing is changed, where it is not known or a file shows it again.
    """
    if c.execute(SQL["is_orphan"], (content_id,)).fetchone() is None:
        return None
    owed = tuple(SpaceName(space) for (space,) in c.execute(SQL["intend_sweep"], (content_id, now_ms)).fetchall())
    segments.delete_all(c, content_id)
    for query in ("delete_gone_assets_of", "delete_live", "delete_content"):
        c.execute(SQL[query], (content_id,))
    return owed


def settle_sweeps(c: sqlite3.Connection, space: SpaceName, uuids: Collection[UUID]) -> None:
    """The store has deleted them and flushed."""
    c.executemany(SQL["settle_sweep"], [(space, uuid.bytes) for uuid in uuids])


def remove_asset(c: sqlite3.Connection, asset: AssetId) -> ContentRow | None:
    """The file's row goes. Returns its content if no visible file holds it any more."""
    held = contents.of_asset(c, asset)
    c.execute(paths.SQL["delete_file"], (asset,))
    if held is None:
        return None
    left = contents.content(c, held.id)
    return left if left.visible == 0 else None


def purge_gone(c: sqlite3.Connection, *, before_ms: int, limit: int) -> list[AssetId]:
    """Forget files gone since *before_ms* or earlier, and folders that are gone and empty, at most *limit* of each."""
    purged = [AssetId(id_) for (id_,) in c.execute(SQL["gone_due"], (before_ms, limit)).fetchall()]
    budget = limit
    while budget > 0:  # a level a round: a folder is empty once those in it went
        swept = len(c.execute(SQL["empty_gone_dirs"], (budget,)).fetchall())
        if not swept:
            break
        budget -= swept
    return purged
