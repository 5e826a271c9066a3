"""The mount table: what is mounted where, which file system it is, and a sign when that changes.

In: /proc/self/mountinfo (proc(5)). Out: values. Elsewhere than on Linux the table is empty and never changes.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_TABLE: Final = "/proc/self/mountinfo"
_BY_UUID: Final = b"/dev/disk/by-uuid"
_FIRST_REST_S: Final = 0.25
_LONGEST_REST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table. `point` is absolute; `fs_type` is the kernel's word ("ext4", "fuse.sshfs")."""

    point: bytes
    fs_type: str


def read_table() -> tuple[Mount, ...]:
    """The table now; empty where the system has none."""
    try:
        return parse(Path(_TABLE).read_bytes())
    except OSError:
        return ()


def parse(table: bytes) -> tuple[Mount, ...]:
    """Lines of /proc/self/mountinfo, in order: a later line hides an earlier one at the same point."""
    found = []
    for line in table.splitlines():
        left, separator, right = line.partition(b" - ")
        fields, kinds = left.split(), right.split()
        if separator and len(fields) >= 5 and kinds:
            found.append(Mount(_unescape(fields[4]), kinds[0].decode("ascii", "replace")))
    return tuple(found)


def type_at(mounts: Iterable[Mount], path: bytes) -> str:
    """Type of the file system that *path* (absolute, resolved) lies on: longest mount point wins; "" if unknown."""
    best, found = -1, ""
    for mount in mounts:
        if (mount.point in {b"/", path} or path.startswith(mount.point + b"/")) and len(mount.point) >= best:
            best, found = len(mount.point), mount.fs_type
    return found


def points_below(mounts: Iterable[Mount], path: bytes) -> tuple[bytes, ...]:
    """Mount points strictly below *path* (absolute, resolved), relative to it, upper ones first."""
    prefix = path.rstrip(b"/") + b"/"
    return tuple(sorted({mount.point[len(prefix) :] for mount in mounts if mount.point.startswith(prefix)} - {b""}))


def file_system_id(path: bytes) -> str:
    """A name of the file system of *path* that outlives a reboot where the system has one; "" where it has none.

    The disk's UUID, else statfs(2)'s f_fsid. The latter may be made of the device number (xfs, FAT): a difference is
    a reason to look closer, not a proof. Touches the disk. Raises OSError.
    """
    device = os.stat(path).st_dev
    with contextlib.suppress(OSError):
        for entry in os.scandir(_BY_UUID):
            if os.stat(entry.path).st_rdev == device:
                return f"uuid:{os.fsdecode(entry.name)}"
    fsid = getattr(os.statvfs(path), "f_fsid", 0)
    return f"fsid:{fsid:x}" if fsid else ""


class Pace:
    """How long the table is left alone after a change: changes that keep coming (containers) are looked at ever more rarely.

    A change after a time of quiet is heard at once and followed by a short rest; each that was there already when the
    rest ended doubles the next one, up to 2 s. Pure: times are given, in seconds of any clock that only goes forward.
    """

    __slots__ = ("_rest_s", "_until")

    def __init__(self) -> None:
        self._rest_s, self._until = 0.0, float("-inf")

    def rest_after(self, now: float) -> float:
        """Seconds to leave the table alone, for a change heard at *now*."""
        is_steady = now < self._until + _FIRST_REST_S
        self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S) if is_steady else _FIRST_REST_S
        self._until = now + self._rest_s
        return self._rest_s


class MountChanges:
    """Becomes readable when the mount table changes (POLLPRI on the table). `fileno` is for an event loop's reader.

    The table is always readable, so the loop cannot poll it itself: an epoll of its own waits for POLLPRI alone.
    """

    def __init__(self, table: int, poll: select.epoll) -> None:
        self._table, self._poll = table, poll
        poll.register(table, select.EPOLLPRI)
        poll.poll(0)  # the state of now is no change

    @classmethod
    def open(cls) -> Self | None:
        """None where the system has no such table."""
        if sys.platform != "linux":
            return None
        try:
            table = os.open(_TABLE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        return cls(table, select.epoll())

    def fileno(self) -> int:
        """To be watched for reading."""
        return self._poll.fileno()

    def take(self) -> None:
        """Rearm. That it became readable is the sign itself: asking the kernel again has cleared it by now."""
        self._poll.poll(0)

    def close(self) -> None:
        """Let go of both descriptors."""
        self._poll.close()
        os.close(self._table)


def _unescape(field: bytes) -> bytes:
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field
