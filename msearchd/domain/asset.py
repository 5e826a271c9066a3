"""Roots, directories, assets and contents: what we know of the user's files.

An asset is a file we know (a place); a content is its bytes (named by BLAKE3); many assets can share one content.
Paths are bytes as the kernel gives them: names that are not UTF-8 exist.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass
from typing import NewType
from uuid import UUID

RootId = NewType("RootId", int)
DirId = NewType("DirId", int)
AssetId = NewType("AssetId", int)
#: Row id of a content in the catalog; not stable across a reset. Points use `content_uuid` instead.
ContentId = NewType("ContentId", int)
#: BLAKE3 of the whole file, 32 bytes.
ContentHash = NewType("ContentHash", bytes)


def content_uuid(content_hash: ContentHash) -> UUID:
    """Name of a content in point payloads: the first 16 bytes of its BLAKE3. The same on every machine."""
    return UUID(bytes=bytes(content_hash[:16]))


@dataclass(frozen=True, slots=True)
class StatFingerprint:
    """What `lstat` says of a file's bytes. Equal fingerprints are believed to be equal bytes."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> StatFingerprint:
        """Take the four fields from an `os.stat_result`."""
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns, ctime_ns=stat.st_ctime_ns, inode=stat.st_ino)

    def same_bytes(self, other: StatFingerprint) -> bool:
        """True where a rename or chmod may have happened but the bytes are believed untouched (ctime may differ)."""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)


@dataclass(frozen=True, slots=True)
class KnownDir:
    """A directory as it was last compared with the disk; all zero if it never was."""

    inode: int
    mtime_ns: int
    ctime_ns: int
    signature: int
    scanned_ms: int


class RootState(enum.StrEnum):
    """Whether a root can be read now. An offline root keeps its hits; nothing of it is deleted."""

    ONLINE = "online"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Root:
    """A watched folder. `path` is absolute."""

    id: RootId
    path: bytes
    state: RootState = RootState.ONLINE
    reason: str = ""


class AssetState(enum.StrEnum):
    """Where an asset stands; every known file is in exactly one of them, so the counts add up."""

    INDEXED = "indexed"  # all its steps are done; its segments are searchable
    PENDING = "pending"  # a job of it is ready, running or delayed
    BLOCKED = "blocked"  # a job of it waits for a cause (model missing, store down, root offline)
    FAILED = "failed"  # a job of it failed for good; retried on a new change or by hand
    SKIPPED = "skipped"  # known and found by name, its bytes are left alone; `reason` says why
