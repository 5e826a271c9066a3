"""From paths to rows and back: folders are rows without path text, so paths are walked, never stored.

All functions take the connection first and run inside the caller's transaction or reader.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from msearchd import errors
from msearchd.aio.sqlite import named_queries
from msearchd.domain.asset import DirId, Root, RootId, RootState
from msearchd.store.catalog import fold

SQL: Final = named_queries("msearchd.store.sql", "tree.sql")
#: A root's own folder hangs on nothing.
TOP: Final = 0


@dataclass(frozen=True, slots=True)
class DirPath:
    """Where a folder is. `ancestors` are ids from itself up to its root's own folder."""

    root: RootId
    relative: bytes
    ancestors: tuple[DirId, ...]
    #: False for a folder that was cut off: it has no path any more.
    is_reachable: bool = True


def split(path: bytes) -> tuple[bytes, bytes]:
    """(folder, name) of a path relative to its root. Raises Bug for the root itself."""
    folder, _, name = path.rpartition(b"/")
    if not name:
        message = f"{path!r} names no file in a root"
        raise errors.Bug(message)
    return folder, name


def join(folder: bytes, name: bytes) -> bytes:
    """Path of *name* in *folder*, both relative to the root; b"" is the root."""
    if not folder:
        return name
    return folder + b"/" + name if name else folder


def absolute(root_path: bytes, relative: bytes) -> bytes:
    """Absolute path; the root may be "/"."""
    return join(root_path.rstrip(b"/"), relative) if root_path != b"/" else b"/" + relative


def roots(c: sqlite3.Connection) -> list[Root]:
    """Watched folders."""
    return [
        Root(RootId(id_), path, RootState(state), reason) for id_, path, state, reason in c.execute(SQL["root_paths"])
    ]


def find_dir(c: sqlite3.Connection, root: RootId, path: bytes, *, with_gone: bool = False) -> DirId | None:
    """Row of the folder at *path*; None if there is none, or it is gone."""
    at = TOP
    for name in _steps(path):
        row = c.execute(SQL["child_dir"], (root, at, name)).fetchone()
        if row is None or (row[1] and not with_gone):
            return None
        at = row[0]
    return DirId(at)


def ensure_dir(c: sqlite3.Connection, root: RootId, path: bytes) -> DirId:
    """Row of the folder at *path*, made if need be, with all folders above it; those that were gone are back."""
    at = TOP
    for name in _steps(path):
        row = c.execute(SQL["child_dir"], (root, at, name)).fetchone()
        if row is None:
            at = c.execute(SQL["put_dir"], (root, at, name)).fetchone()[0]
            put_dir_name(c, at, name)
            continue
        at, is_gone = row
        if is_gone:
            c.execute(SQL["revive_dir"], (at,))
    return DirId(at)


def put_dir_name(c: sqlite3.Connection, dir_id: int, name: bytes) -> None:
    """Make a folder's name searchable; a new one replaces the old one."""
    key = fold.name_key(name)
    c.execute(SQL["put_dir_name"], (dir_id, key, fold.short_grams(key)))


def _steps(path: bytes) -> Iterable[bytes]:
    """b"" (the root's own folder), then each name on the way."""
    return (b"", *path.split(b"/")) if path else (b"",)


def paths_of(c: sqlite3.Connection, dirs: Collection[int]) -> dict[int, DirPath]:
    """Relative path and ancestors of each of *dirs* that exists."""
    if not dirs:
        return {}
    ways: dict[int, list[tuple[int, bytes, int, int]]] = {}
    for start, id_, name, root, parent in c.execute(SQL["path_of_dirs"], (json.dumps(sorted(set(dirs))),)):
        ways.setdefault(start, []).append((id_, name, root, parent))
    return {start: _path_of_way(way) for start, way in ways.items()}


def _path_of_way(way: list[tuple[int, bytes, int, int]]) -> DirPath:
    names = [name for _, name, _, _ in reversed(way)]
    return DirPath(
        root=RootId(way[0][2]),
        relative=b"/".join(names[1:]),
        ancestors=tuple(DirId(id_) for id_, *_ in way),
        is_reachable=way[-1][3] == TOP,
    )


def locate(c: sqlite3.Connection, path: bytes) -> tuple[Root, bytes] | None:
    """The root that *path* (absolute) lies in and the rest of it; the longest root wins. None: outside of all."""
    best: Root | None = None
    for root in roots(c):
        if is_inside(path, root.path) and (best is None or len(root.path) > len(best.path)):
            best = root
    return (best, path[len(best.path.rstrip(b"/")) :].strip(b"/")) if best is not None else None


def is_inside(path: bytes, folder: bytes) -> bool:
    """True if *path* is *folder* or lies in it; both absolute."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
