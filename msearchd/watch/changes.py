"""What the watch stage hands on: changes of the user's files, as values.

In: nothing. Out: one frozen dataclass per kind of change; `Change` is their union.
A path is bytes relative to its root, components joined by "/"; b"" is the root itself. Changes are in order: a later
one is true after an earlier one. Applying a change twice is applying it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from msearchd.domain.asset import RootId, RootState, StatFingerprint


@dataclass(frozen=True, slots=True)
class FileSeen:
    """New or changed bytes at *path*. `is_live`: an event told us; else a scan found it."""

    root: RootId
    path: bytes
    fingerprint: StatFingerprint
    is_live: bool


@dataclass(frozen=True, slots=True)
class FileTouched:
    """Only the ctime is new (chmod, link, rename back): remember it, do not read the file again."""

    root: RootId
    path: bytes
    fingerprint: StatFingerprint


@dataclass(frozen=True, slots=True)
class FileLeft:
    """A file that is known and found by name only; `reason` says why its bytes are left alone.

    Its fingerprint has inode 0, which no file has: once the reason is gone (limit raised, permission given, placeholder
    filled) the fingerprint differs and the file is seen, although no byte of it changed.
    """

    root: RootId
    path: bytes
    fingerprint: StatFingerprint
    reason: str


@dataclass(frozen=True, slots=True)
class FileGone:
    """No indexable file is at *path* any more: deleted, moved away, excluded, or replaced by something else."""

    root: RootId
    path: bytes


@dataclass(frozen=True, slots=True)
class TreeGone:
    """The directory at *path* and all in it is gone or excluded. Never names a root itself."""

    root: RootId
    path: bytes


@dataclass(frozen=True, slots=True)
class FileMoved:
    """The same bytes at a new place; whatever was known at the new place is replaced.

    Where the old place is not known (any more), it is as good as FileSeen at the new one.
    """

    root: RootId
    old: bytes
    new_root: RootId
    new: bytes
    fingerprint: StatFingerprint


@dataclass(frozen=True, slots=True)
class TreeMoved:
    """A directory was renamed or moved with all in it. The new place is not known when this arrives."""

    root: RootId
    old: bytes
    new_root: RootId
    new: bytes


@dataclass(frozen=True, slots=True)
class DirScanned:
    """Directory *path* was compared as a whole: what is known of its direct children equals the disk.

    `signature`: signed 64-bit hash over the names and fingerprints of its children. A signature of 0 takes that claim
    back (one child was handled by itself meanwhile): compare everything next time.
    """

    root: RootId
    path: bytes
    inode: int
    mtime_ns: int
    ctime_ns: int
    signature: int
    scanned_ms: int  # UTC


@dataclass(frozen=True, slots=True)
class RootWent:
    """A root became readable or unreadable as a whole. Offline deletes nothing; `reason` is a sentence for people."""

    root: RootId
    state: RootState
    reason: str


Change: TypeAlias = (
    FileSeen | FileTouched | FileLeft | FileGone | TreeGone | FileMoved | TreeMoved | DirScanned | RootWent
)
