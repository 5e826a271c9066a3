"""Writes to the tree of roots, folders and files.

In: what was seen, relative to a root. Out: rows. Every function takes the connection first, runs inside the caller's
transaction and may be repeated. Never touches the disk.

Hiding is one column: a gone file is out of every search with the commit, its row stays for the grace period, and seeing
it again brings everything back. Renaming or moving a folder changes one row.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from msearchd import errors
from msearchd.domain.asset import AssetId, AssetState, DirId, RootId, RootState, StatFingerprint
from msearchd.store.catalog import fold, paths
from msearchd.store.catalog.paths import SQL, TOP
from msearchd.store.catalog.rows import TreeMove, fingerprint_of, signed_64

#: Files of an overwritten folder hidden at once: rename(2) replaces only empty folders, so there are few if any.
_ALL: Final = 1 << 40


# -- roots -----------------------------------------------------------------------------------------------------------


def add_root(c: sqlite3.Connection, path: bytes, *, now_ms: int) -> RootId:
    """Watch *path*; twice is once. Raises BadRequest for a relative path and for a folder inside a watched one."""
    if not path.startswith(b"/"):
        message = f"{_shown(path)} is not an absolute path"
        raise errors.BadRequest(message, hint="give the whole path, from / on")
    path = b"/" + path.strip(b"/")
    for root in paths.roots(c):
        if root.path != path and paths.is_inside(path, root.path):
            message = f"{_shown(path)} lies in {_shown(root.path)}, which is watched already"
            raise errors.BadRequest(message, hint="nothing needs to be added")
        if root.path != path and paths.is_inside(root.path, path):
            message = f"{_shown(root.path)} is watched and lies in {_shown(path)}"
            raise errors.BadRequest(message, hint=f"remove it first: msearch remove {_shown(root.path)}")
    root_id = RootId(c.execute(SQL["put_root"], (path, now_ms)).fetchone()[0])
    paths.ensure_dir(c, root_id, b"")
    return root_id


def widen_root(c: sqlite3.Connection, path: bytes, *, now_ms: int) -> tuple[RootId, list[DirId]]:
    """Watch *path*, which holds watched folders: they become folders of it, with all that is known of them.

    Gives the new root and the rows of the folders that moved; all ids stay. Raises as add_root where *path* lies in a root.
    """
    path = b"/" + path.strip(b"/")
    held = [root for root in paths.roots(c) if root.path != path and paths.is_inside(root.path, path)]
    for root in held:
        remove_root(c, root.id, now_ms=now_ms)
    wide = add_root(c, path, now_ms=now_ms)
    moved = []
    for root in held:
        top = paths.find_dir(c, root.id, b"")
        if top is not None:
            folder, name = paths.split(root.path[len(path.rstrip(b"/")) + 1 :])
            parent = paths.ensure_dir(c, wide, folder)
            _clear_place(c, wide, parent, name, now_ms=now_ms)
            c.execute(SQL["adopt_subtree"], (top, root.id, wide))
            c.execute(SQL["place_dir"], (top, wide, parent, name))
            paths.put_dir_name(c, top, name)
            moved.append(top)
    return wide, moved


def remove_root(c: sqlite3.Connection, root: RootId, *, now_ms: int) -> None:
    """Watch it no longer: out of every search at once. Quiet if it is not watched."""
    c.execute(SQL["remove_root"], (root, now_ms))


def set_root_state(c: sqlite3.Connection, root: RootId, state: RootState, reason: str) -> None:
    """Online or offline; the hits of an offline root stay and say so."""
    c.execute(SQL["set_root_state"], (root, state.value, reason))


# -- files -----------------------------------------------------------------------------------------------------------


def see_file(c: sqlite3.Connection, root: RootId, path: bytes, fingerprint: StatFingerprint) -> AssetId:
    """The file is there and stat says *fingerprint*: make or find its row, un-hide it.

    A file that was gone and comes back with the same bytes keeps its content, so it is searchable at once. With other
    bytes it loses it: what it held is gone. A file that was never gone keeps its old content until `identified`.
    """
    folder, name = paths.split(path)
    dir_id = paths.ensure_dir(c, root, folder)
    row = c.execute(SQL["file_row"], (dir_id, name)).fetchone()
    if row is None:
        return AssetId(_put_file(c, dir_id, name, fingerprint))
    id_, *stat, content, gone_ms = row
    known = fingerprint_of(*stat)
    if known != fingerprint:
        c.execute(SQL["set_fingerprint"], (id_, *_columns(fingerprint)))
    if gone_ms is not None:
        if content is not None and not known.same_bytes(fingerprint):
            c.execute(SQL["unlink_content"], (id_,))
        c.execute(SQL["unhide_file"], (id_,))
    return AssetId(id_)


def touch_file(c: sqlite3.Connection, root: RootId, path: bytes, fingerprint: StatFingerprint) -> AssetId | None:
    """Only its ctime moved: remember that. None for a file that is not known."""
    if (found := _visible_file(c, root, path)) is None:
        return None
    c.execute(SQL["set_fingerprint"], (found[0], *_columns(fingerprint)))
    return AssetId(found[0])


def hide_file(c: sqlite3.Connection, root: RootId, path: bytes, *, now_ms: int) -> AssetId | None:
    """The file is gone. None if it was not known, or gone already."""
    found = _visible_file(c, root, path)
    if found is None:
        return None
    c.execute(SQL["hide_file"], (found[0], now_ms))
    return AssetId(found[0])


def move_file(
    c: sqlite3.Connection,
    root: RootId,
    old: bytes,
    new_root: RootId,
    new: bytes,
    fingerprint: StatFingerprint,
    *,
    now_ms: int,
) -> AssetId | None:
    """The same bytes at a new place: the row moves with all that hangs on it.

    None if the old place is not known or held other bytes than *fingerprint*: then the old place is hidden, and the
    caller sees the new one as a new file. What was known at the new place is overwritten, as rename(2) does.
    """
    found = _visible_file(c, root, old)
    if found is None:
        return None
    id_, known = found
    if not known.same_bytes(fingerprint):
        c.execute(SQL["hide_file"], (id_, now_ms))
        return None
    folder, name = paths.split(new)
    dir_id = paths.ensure_dir(c, new_root, folder)
    displaced = c.execute(SQL["file_row"], (dir_id, name)).fetchone()
    if displaced is not None and displaced[0] != id_:
        c.execute(SQL["delete_file"], (displaced[0],))
    c.execute(SQL["place_file"], (id_, dir_id, *_name_columns(name)))
    c.execute(SQL["set_fingerprint"], (id_, *_columns(fingerprint)))
    c.execute(SQL["label_seen"], (id_,))
    return AssetId(id_)


def _put_file(c: sqlite3.Connection, dir_id: int, name: bytes, fingerprint: StatFingerprint) -> int:
    row = c.execute(SQL["put_file"], (dir_id, *_name_columns(name), *_columns(fingerprint))).fetchone()
    return int(row[0])


def _name_columns(name: bytes) -> tuple[bytes, str, str, str]:
    key = fold.name_key(name)
    return name, key, fold.short_grams(key), fold.extension(key)


def _visible_file(c: sqlite3.Connection, root: RootId, path: bytes) -> tuple[int, StatFingerprint] | None:
    folder, name = paths.split(path)
    dir_id = paths.find_dir(c, root, folder)
    if dir_id is None:
        return None
    row = c.execute(SQL["file_row"], (dir_id, name)).fetchone()
    if row is None or row[-1] is not None:
        return None
    return row[0], fingerprint_of(*row[1:5])


def _columns(fingerprint: StatFingerprint) -> tuple[int, int, int, int]:
    return fingerprint.size, fingerprint.mtime_ns, fingerprint.ctime_ns, signed_64(fingerprint.inode)


# -- trees -----------------------------------------------------------------------------------------------------------


def hide_tree(c: sqlite3.Connection, root: RootId, path: bytes, *, limit: int, now_ms: int) -> list[AssetId]:
    """Hide files of a folder and all below it, at most *limit* and the deepest first; [] once nothing is left.

    A folder is marked gone when everything in it is, so a call goes on where the last one stopped.
    """
    top = paths.find_dir(c, root, path)
    return [] if top is None else _hide_below(c, root, top, limit=limit, now_ms=now_ms)


def _hide_below(c: sqlite3.Connection, root: RootId, top: DirId, *, limit: int, now_ms: int) -> list[AssetId]:
    hidden: list[AssetId] = []
    way = [int(top)]
    while way:
        at = way[-1]
        if (child := c.execute(SQL["first_child_dir"], (root, at)).fetchone()) is not None:
            way.append(child[0])
            continue
        hidden += [
            AssetId(id_) for (id_,) in c.execute(SQL["hide_files_of_dir"], (at, now_ms, limit - len(hidden))).fetchall()
        ]
        if len(hidden) >= limit:
            break
        c.execute(SQL["mark_dir_gone"], (at,))
        way.pop()
    return hidden


def move_tree(
    c: sqlite3.Connection, root: RootId, old: bytes, new_root: RootId, new: bytes, *, now_ms: int
) -> TreeMove | None:
    """A folder was renamed or moved with all in it: one row changes, all ids stay.

    None if it is not known (a scan of the new place finds it). What was known at the new place is out of the way and
    hidden, as rename(2) replaces only what is empty.
    """
    moved = paths.find_dir(c, root, old)
    if moved is None or not old or not new or (root == new_root and paths.is_inside(new, old)):
        return None
    folder, name = paths.split(new)
    parent = paths.ensure_dir(c, new_root, folder)
    _clear_place(c, new_root, parent, name, now_ms=now_ms)
    _, old_parent, _ = c.execute(SQL["dir_row"], (moved,)).fetchone()
    if new_root != root:
        c.execute(SQL["adopt_subtree"], (moved, root, new_root))
    c.execute(SQL["place_dir"], (moved, new_root, parent, name))
    paths.put_dir_name(c, moved, name)
    return TreeMove(is_rename=old_parent == parent, dir_id=moved)


def _clear_place(c: sqlite3.Connection, root: RootId, parent: DirId, name: bytes, *, now_ms: int) -> None:
    row = c.execute(SQL["child_dir"], (root, parent, name)).fetchone()
    if row is None:
        return
    obstacle, is_gone = row
    if not is_gone:
        _hide_below(c, root, obstacle, limit=_ALL, now_ms=now_ms)
    c.execute(SQL["cut_off_dir"], (obstacle,))


def compared_dir(
    c: sqlite3.Connection,
    root: RootId,
    path: bytes,
    *,
    inode: int,
    mtime_ns: int,
    ctime_ns: int,
    signature: int,
    scanned_ms: int,
) -> None:
    """A folder was compared with the disk and was like this."""
    dir_id = paths.ensure_dir(c, root, path)
    c.execute(SQL["compared_dir"], (dir_id, signed_64(inode), mtime_ns, ctime_ns, signed_64(signature), scanned_ms))


# -- state -----------------------------------------------------------------------------------------------------------


def set_state(c: sqlite3.Connection, asset: AssetId, state: AssetState, reason: str) -> None:
    """Where the file stands, and why. Quiet for one that does not exist."""
    c.execute(SQL["set_state"], (asset, state.value, reason))


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")


__all__ = [
    "TOP",
    "add_root",
    "compared_dir",
    "hide_file",
    "hide_tree",
    "move_file",
    "move_tree",
    "remove_root",
    "see_file",
    "set_root_state",
    "set_state",
    "touch_file",
    "widen_root",
]
