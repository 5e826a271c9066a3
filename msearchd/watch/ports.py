"""What the watch stage needs of others: a tree that remembers, and a sink for changes. The daemon passes both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from msearchd.domain.asset import KnownDir, RootId, StatFingerprint
from msearchd.watch.changes import Change

__all__ = ["ChangeSink", "KnownDir", "KnownFile", "KnownTree", "ManyDirectories", "SingleFileLookup", "WholeFolders"]


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as it was last seen."""

    fingerprint: StatFingerprint


class KnownTree(Protocol):
    """What is remembered of the roots. Reads see every change whose `ChangeSink.apply` has returned."""

    async def directory(self, root: RootId, path: bytes) -> KnownDir | None:
        """The directory at *path*; None if it was never compared."""

    async def files(self, root: RootId, path: bytes) -> dict[bytes, StatFingerprint]:
        """Direct child files by name, those that are gone left out."""

    async def subdirs(self, root: RootId, path: bytes) -> list[bytes]:
        """Names of the direct child directories."""

    def directories(self, root: RootId, path: bytes = b"") -> AsyncIterator[list[tuple[bytes, KnownDir]]]:
        """Every known directory under *path*, itself included, in batches, in any order."""

    async def count_files(self, root: RootId, path: bytes = b"") -> int:
        """How many files are known under *path*."""


@runtime_checkable
class SingleFileLookup(Protocol):
    """A KnownTree that can also look at one file; without it a change in a large folder reads all its names."""

    async def file(self, root: RootId, path: bytes) -> StatFingerprint | None:
        """The file at *path*; None if it is not known."""


@runtime_checkable
class ManyDirectories(Protocol):
    """A KnownTree that can look at many directories in one read; without it a scan asks for each by itself."""

    async def some_directories(self, root: RootId, wanted: Sequence[bytes]) -> dict[bytes, KnownDir | None]:
        """Each of *wanted* -> the directory there; None if it was never compared."""


@runtime_checkable
class WholeFolders(Protocol):
    """A KnownTree that can tell all of a folder in one read; without it a scan asks for files and for folders."""

    async def contents(self, root: RootId, path: bytes) -> tuple[dict[bytes, StatFingerprint], list[bytes]]:
        """What `files` and `subdirs` say of *path*, both of the same moment."""


class ChangeSink(Protocol):
    """Where changes go."""

    async def apply(self, changes: Sequence[Change]) -> None:
        """Make *changes* durable, in order, before it returns; applying them again changes nothing."""
