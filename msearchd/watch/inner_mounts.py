"""Disks that are mounted INSIDE a root: while one is away, what is known below it is kept.

In: the mount table as the keeper saw it. Out: answers for the scanning thread: may this folder be believed, which names
must not be taken for deleted. A folder whose disk is away reads as unreadable, whatever stands in its place.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msearchd.watch import paths

#: (device, inode) of the folder that a mounted file system shows.
Identity = tuple[int, int]
AWAY: Final = "the disk that was mounted here is away"
OTHER: Final = "another disk is mounted here than before; if that is meant, type: msearch process FOLDER"


@dataclass(frozen=True, slots=True)
class Turned:
    """What one look at the mount table changed. Folders relative to the root."""

    came: tuple[bytes, ...] = ()  # compare them
    went: tuple[bytes, ...] = ()  # they are offline from now on

    def __bool__(self) -> bool:
        return bool(self.came or self.went)


class InnerMounts:
    """Of one root. Written by the watcher's task, read by the scanning thread: every write replaces one dictionary."""

    def __init__(self, remembered: Mapping[bytes, str] | None = None) -> None:
        #: Every mount point we know -> id of the file system that belongs there.
        self.belongs: dict[bytes, str] = dict(remembered or {})
        self._here: dict[bytes, Identity] = {}
        self._reasons: dict[bytes, str] = {}

    def __bool__(self) -> bool:
        return bool(self.belongs)

    @property
    def away(self) -> dict[bytes, str]:
        """Folders whose disk is not there -> why they are not read."""
        here, reasons = self._here, self._reasons
        return {point: reasons.get(point, AWAY) for point in self.belongs if point not in here}

    def check(self, path: bytes, identity: Identity) -> None:
        """Raise OSError(ENODEV) if a disk belongs at *path* and the open folder is not its top."""
        if path in self.belongs and self._here.get(path) != identity:
            raise OSError(errno.ENODEV, self._reasons.get(path, AWAY))

    def is_away(self, path: bytes) -> bool:
        """True if *path* lies on a disk that is away."""
        here = self._here
        return any(point not in here and paths.is_below(path, point) for point in self.belongs)

    def held_names(self, folder: bytes) -> frozenset[bytes]:
        """Names in *folder* that lead to a disk which is away: missing, they are not deleted."""
        here, prefix = self._here, folder + b"/" if folder else b""
        return frozenset(
            point[len(prefix) :].split(b"/")[0]
            for point in self.belongs
            if point not in here and point.startswith(prefix) and point != folder
        )

    def turn(self, found: Mapping[bytes, Identity], *, strange: frozenset[bytes], ids: Mapping[bytes, str]) -> Turned:
        """Take over what is mounted now.

        *found*: mount points -> identity of what they show; *ids*: their file systems; *strange*: those where another
        disk stands than belongs there, not to be believed.
        """
        good = {point: identity for point, identity in found.items() if point not in strange}
        came = tuple(sorted(point for point, identity in good.items() if self._here.get(point) != identity))
        went = tuple(sorted(point for point in self._here if point not in good))
        self._reasons = dict.fromkeys(strange, OTHER)
        self.belongs = {**self.belongs, **{point: ids[point] for point in good}}
        self._here = good
        return Turned(came, went)

    def forget_away(self) -> tuple[bytes, ...]:
        """A person said that what is not mounted is no more: believe the disk as it is. Says which folders that means."""
        here = self._here
        gone = tuple(point for point in self.belongs if point not in here)
        self.belongs = {point: file_system for point, file_system in self.belongs.items() if point in here}
        self._reasons = {}
        return gone

    def remembered(self) -> tuple[tuple[bytes, str], ...]:
        """For the mark."""
        return tuple(sorted(self.belongs.items()))
