"""Does the open database still lie at its path? SQLite itself goes on in a file that has another name by now, or none.

In: the path, and what lay there when it was opened. Out: where things stand, by one stat. Blocks; called in a thread.
"""

from __future__ import annotations

import contextlib
import enum
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

Identity = tuple[int, int]  # st_dev, st_ino
_LOGS: Final = ("-wal", "-shm")


class Standing(enum.Enum):
    """Where the open file is."""

    HERE = "at its place"
    GONE = "removed"
    OTHER = "replaced by another"
    AWAY = "on a disk that is away"


@dataclass(frozen=True, slots=True)
class Seen:
    """One look. `stamp`: of the other file (device, inode, size, mtime_ns): equal in two looks, nobody writes it now."""

    standing: Standing
    stamp: tuple[int, int, int, int] = (0, 0, 0, 0)


class FilePlace:
    """Of a file that lies at its place when this is made. Remembers which logs belong to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = _identity(os.stat(path))
        self._logs: frozenset[Identity] = frozenset()

    def look(self) -> Seen:
        """Where the file is now. Never raises."""
        try:
            status = os.stat(self.path)
        except OSError:
            return Seen(Standing.GONE if self._is_disk_here() else Standing.AWAY)
        if _identity(status) == self._own:
            self._logs = frozenset(self._logs_here().values())
            return Seen(Standing.HERE)
        return Seen(Standing.OTHER, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))

    def drop_logs(self) -> list[Path]:
        """Remove the old file's log where another file lies now: SQLite would play it into that one. Those removed."""
        removed = []
        for path, identity in self._logs_here().items():
            if identity in self._logs:
                with contextlib.suppress(OSError):
                    path.unlink()
                    removed.append(path)
        return removed

    def _logs_here(self) -> dict[Path, Identity]:
        found = {}
        for end in _LOGS:
            path = self.path.with_name(self.path.name + end)
            with contextlib.suppress(OSError):
                found[path] = _identity(os.stat(path))
        return found

    def _is_disk_here(self) -> bool:
        """Whether the nearest folder that is there lies on the file's disk: an unmounted one comes back with its file."""
        for folder in self.path.parents:
            with contextlib.suppress(OSError):
                return os.stat(folder).st_dev == self._own[0]
        return False


def _identity(status: os.stat_result) -> Identity:
    return (status.st_dev, status.st_ino)
