"""Reads of the tree: what the watch stage compares with, single files, counts.

Every function takes a connection first and may run beside the writer.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from msearchd.domain.asset import AssetId, AssetState, ContentId, DirId, KnownDir, RootId, StatFingerprint
from msearchd.domain.media import Modality
from msearchd.store.catalog import paths
from msearchd.store.catalog.paths import SQL
from msearchd.store.catalog.rows import AssetRow, fingerprint_of, unsigned_64

_NO_LIMIT: Final = -1


def directory(c: sqlite3.Connection, root: RootId, path: bytes) -> KnownDir | None:
    """The folder as it was last compared; None if it is not known or never was."""
    dir_id = paths.find_dir(c, root, path)
    if dir_id is None:
        return None
    known = _known_dir(c.execute(SQL["known_dir"], (dir_id,)).fetchone())
    return known if known.scanned_ms else None


def some_directories(c: sqlite3.Connection, root: RootId, wanted: Sequence[bytes]) -> dict[bytes, KnownDir | None]:
    """Each of *wanted* as it was last compared: one read of a scan's slice.

    A walk asks for siblings next to each other: each family is one range of an index, its folder is looked for once.
    """
    families: dict[bytes, list[bytes]] = {}
    found: dict[bytes, KnownDir | None] = dict.fromkeys(wanted)
    for path in wanted:
        folder, _, name = path.rpartition(b"/")
        if name:
            families.setdefault(folder, []).append(name)
        else:
            found[path] = directory(c, root, path)
    for folder, names in families.items():
        if (parent := paths.find_dir(c, root, folder)) is None:
            continue
        # A bound: those asked for may be few of many, and far apart.
        limit = 2 * len(names)
        rows = c.execute(SQL["some_child_dirs"], (root, parent, min(names), max(names), limit)).fetchall()
        known = {name: _known_dir(row) for _, name, *row in rows}
        for name in names:
            path = paths.join(folder, name)
            if (row := known.get(name)) is not None:
                found[path] = row if row.scanned_ms else None
            elif len(rows) == limit:
                found[path] = directory(c, root, path)
    return found


def files(c: sqlite3.Connection, root: RootId, path: bytes) -> dict[bytes, StatFingerprint]:
    """Direct child files that are not gone."""
    dir_id = paths.find_dir(c, root, path)
    if dir_id is None:
        return {}
    return {name: fingerprint_of(*stat) for name, *stat in c.execute(SQL["files_of_dir"], (dir_id,))}


def file(c: sqlite3.Connection, root: RootId, path: bytes) -> StatFingerprint | None:
    """One file; None if it is not known or gone."""
    folder, name = paths.split(path)
    dir_id = paths.find_dir(c, root, folder)
    row = None if dir_id is None else c.execute(SQL["file_row"], (dir_id, name)).fetchone()
    return None if row is None or row[-1] is not None else fingerprint_of(*row[1:5])


def subdirs(c: sqlite3.Connection, root: RootId, path: bytes) -> list[bytes]:
    """Names of direct child folders that are not gone."""
    dir_id = paths.find_dir(c, root, path)
    return [] if dir_id is None else [row[1] for row in c.execute(SQL["child_dirs"], (root, dir_id))]


def contents(c: sqlite3.Connection, root: RootId, path: bytes) -> tuple[dict[bytes, StatFingerprint], list[bytes]]:
    """Direct child files, and names of direct child folders, that are not gone."""
    dir_id = paths.find_dir(c, root, path)
    if dir_id is None:
        return {}, []
    names = [row[1] for row in c.execute(SQL["child_dirs"], (root, dir_id))]
    return {name: fingerprint_of(*stat) for name, *stat in c.execute(SQL["files_of_dir"], (dir_id,))}, names


#: A folder still to be read: its id and its path.
Frontier = list[tuple[DirId, bytes]]


def first_directories(
    c: sqlite3.Connection, root: RootId, path: bytes
) -> tuple[list[tuple[bytes, KnownDir]], Frontier]:
    """The folder itself, and where to go on."""
    dir_id = paths.find_dir(c, root, path)
    if dir_id is None:
        return [], []
    return [(path, _known_dir(c.execute(SQL["known_dir"], (dir_id,)).fetchone()))], [(dir_id, path)]


def more_directories(
    c: sqlite3.Connection, root: RootId, frontier: Frontier
) -> tuple[list[tuple[bytes, KnownDir]], Frontier]:
    """The folders in those of *frontier*, and where to go on."""
    found: list[tuple[bytes, KnownDir]] = []
    further: Frontier = []
    for parent, parent_path in frontier:
        for id_, name, *known in c.execute(SQL["child_dirs"], (root, parent)):
            path = paths.join(parent_path, name)
            found.append((path, _known_dir(known)))
            further.append((DirId(id_), path))
    return found, further


def count_files(c: sqlite3.Connection, root: RootId, path: bytes) -> int:
    """Files in a folder and all below it; of a whole root without counting."""
    if not path:
        return int(c.execute(SQL["count_root"], (root,)).fetchone()[0])
    dir_id = paths.find_dir(c, root, path)
    return 0 if dir_id is None else int(c.execute(SQL["count_below"], (root, dir_id)).fetchone()[0])


def _known_dir(row: Sequence[int]) -> KnownDir:
    inode, mtime_ns, ctime_ns, signature, scanned_ms = row
    return KnownDir(unsigned_64(inode), mtime_ns, ctime_ns, signature, scanned_ms)


def subtree(c: sqlite3.Connection, dir_id: DirId, *, limit: int = _NO_LIMIT) -> list[DirId]:
    """Ids of a folder and all below it, at most *limit*."""
    row = c.execute(SQL["dir_row"], (dir_id,)).fetchone()
    if row is None:
        return []
    return [DirId(id_) for (id_,) in c.execute(SQL["subtree"], (row[0], dir_id, limit))]


def assets_of_dirs(c: sqlite3.Connection, dirs: Sequence[int]) -> list[AssetId]:
    """Files of the given folders, not of those below them."""
    return [AssetId(id_) for (id_,) in c.execute(SQL["assets_of_dirs"], (json.dumps(list(dirs)),))]


def asset(c: sqlite3.Connection, asset_id: AssetId) -> AssetRow | None:
    """All that is known of a file; None if there is no such file, or its place was taken over while it was gone."""
    row = c.execute(SQL["asset_by_id"], (asset_id,)).fetchone()
    if row is None:
        return None
    id_, dir_id, name, size, mtime_ns, ctime_ns, inode, content, state, reason, gone_ms, mime, label, modality = row
    where = paths.paths_of(c, [dir_id])[dir_id]
    root = next((root for root in paths.roots(c) if root.id == where.root), None)
    if root is None or not where.is_reachable:
        return None
    relative = paths.join(where.relative, name)
    return AssetRow(
        id=AssetId(id_),
        root=root.id,
        root_state=root.state,
        dir=DirId(dir_id),
        path=paths.absolute(root.path, relative),
        relative=relative,
        fingerprint=fingerprint_of(size, mtime_ns, ctime_ns, inode),
        content=None if content is None else ContentId(content),
        state=AssetState(state),
        reason=reason,
        is_gone=gone_ms is not None,
        gone_ms=gone_ms,
        mime=mime or "",
        type_label=label or "",
        modality=None if modality is None else Modality(modality),
    )


def asset_by_path(c: sqlite3.Connection, path: bytes) -> AssetRow | None:
    """The file at an absolute path, gone or not; None if it is not known."""
    located = paths.locate(c, path)
    if located is None or not located[1]:
        return None
    root, relative = located
    folder, name = paths.split(relative)
    dir_id = paths.find_dir(c, root.id, folder, with_gone=True)
    row = None if dir_id is None else c.execute(SQL["file_row"], (dir_id, name)).fetchone()
    return None if row is None else asset(c, AssetId(row[0]))


def counts(c: sqlite3.Connection) -> dict[RootId, dict[AssetState, int]]:
    """Files of every watched root by state; every state is there, and they add up to the known files."""
    found = {root.id: dict.fromkeys(AssetState, 0) for root in paths.roots(c)}
    for root, state, n in c.execute(SQL["counts"]):
        found[root][AssetState(state)] = n
    return found
