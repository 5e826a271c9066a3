"""What outlives the daemon about roots: which disk each was on, which disks are mounted in it, where a scan stood.

In and out: a small JSON file of our own data folder, replaced as a whole. Nothing is written into watched folders. A
file that is lost or broken costs certainty (the next disk seen is taken for the right one), never an index.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from msearchd.domain.asset import RootId

log = structlog.get_logger(__name__)

_VERSION: Final = 1
#: A walk with more folders to go is begun anew instead: its cursor would be megabytes.
MAX_CURSOR: Final = 20_000


@dataclass(frozen=True, slots=True)
class RootMark:
    """One root as it was last believed. `file_system`: `mounts.file_system_id`, "" if unknown."""

    path: bytes
    file_system: str = ""
    inode: int = 0
    #: Folders of the root (relative) on which another file system is mounted -> its id.
    inner: tuple[tuple[bytes, str], ...] = ()
    #: Folders (relative) that an unfinished whole scan had still to walk; empty: none was cut off.
    cursor: tuple[bytes, ...] = ()


class Marks:
    """The file. Reads it once; `save` writes (from a thread: it syncs)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks = _read(path)
        self._saved = dict(self._marks)

    def of(self, root: RootId, path: bytes) -> RootMark:
        """The mark of a root; an empty one if it is new, or its number stood for another folder."""
        mark = self._marks.get(root)
        return mark if mark is not None and mark.path == path else RootMark(path)

    def put(self, root: RootId, mark: RootMark) -> None:
        """Remember; on disk after the next `save`."""
        self._marks[root] = mark

    def forget(self, root: RootId) -> None:
        """The root is not watched any more."""
        self._marks.pop(root, None)

    @property
    def is_dirty(self) -> bool:
        """True if `save` has something to write."""
        return self._marks != self._saved

    def save(self) -> None:
        """Write what changed. A disk that refuses is told to the log: the marks only make losses rarer."""
        marks = dict(self._marks)
        rows = {str(root): _to_json(mark) for root, mark in marks.items()}
        fresh = self._path.with_suffix(".new")
        try:
            with fresh.open("w", encoding="ascii") as file:
                json.dump({"version": _VERSION, "roots": rows}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            log.warning("cannot remember the disks of the folders", reason=error.strerror)
            return
        self._saved = marks


def _read(path: Path) -> dict[RootId, RootMark]:
    try:
        stored = json.loads(path.read_text(encoding="ascii"))
        if stored["version"] != _VERSION:
            return {}
        return {RootId(int(root)): _from_json(row) for root, row in stored["roots"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        log.warning("what was remembered of the folders' disks is unreadable", path=str(path), reason=str(error))
        return {}


def _to_json(mark: RootMark) -> dict[str, Any]:
    row = dataclasses.asdict(mark)
    row["path"] = os.fsdecode(mark.path)
    row["inner"] = [[os.fsdecode(point), file_system] for point, file_system in mark.inner]
    row["cursor"] = [os.fsdecode(folder) for folder in mark.cursor]
    return row


def _from_json(row: dict[str, Any]) -> RootMark:
    return RootMark(
        path=os.fsencode(row["path"]),
        file_system=str(row["file_system"]),
        inode=int(row["inode"]),
        inner=tuple((os.fsencode(point), str(file_system)) for point, file_system in row["inner"]),
        cursor=tuple(os.fsencode(folder) for folder in row["cursor"]),
    )
