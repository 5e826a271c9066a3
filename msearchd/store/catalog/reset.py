"""Throwing the catalog away, in three depths. Never touches the user's files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final, Literal

from msearchd.domain.asset import AssetId

ResetType = Literal["index", "database", "all"]

#: In an order that foreign keys allow. Triggers keep the counters, so they end at zero by themselves.
_INDEX: Final = (
    # Inode 0: the watcher leaves the file alone (a placeholder, too large), and a reset is no reason to read it.
    "UPDATE asset SET content = NULL, state = 'pending', reason = '' WHERE inode <> 0",
    "DELETE FROM content_space",
    "DELETE FROM intent",
    "DELETE FROM space",
    "DELETE FROM content",
    "DELETE FROM segment",
    "INSERT INTO segment_words (segment_words) VALUES ('delete-all')",
    "DELETE FROM ext_type",
    "DELETE FROM type_count",
)
_TREE: Final = (
    "DELETE FROM asset",
    "DELETE FROM dir",
    "DELETE FROM asset_count",
)
_ROOTS: Final = ("DELETE FROM root",)
_REMOVED_ROOTS: Final = ("DELETE FROM root WHERE removed_ms IS NOT NULL",)
_DEPTHS: Final[dict[ResetType, tuple[str, ...]]] = {
    "index": _INDEX,
    "database": _INDEX + _TREE + _REMOVED_ROOTS,
    "all": _INDEX + _TREE + _ROOTS,
}


def reset(c: sqlite3.Connection, what: ResetType) -> None:
    """Delete as said in `Catalog.reset_in`."""
    for statement in _DEPTHS[what]:
        c.execute(statement)


def visible_assets(c: sqlite3.Connection) -> Iterator[AssetId]:
    """Every file that is neither gone nor left alone, in no order."""
    return (AssetId(id_) for (id_,) in c.execute("SELECT id FROM asset WHERE gone_ms IS NULL AND inode <> 0"))
