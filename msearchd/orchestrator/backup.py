"""A copy of the index in a new folder, taken while work goes on.

In: a folder that is not there yet. Out: `msearchd.db`, and `vectors/` where they are files of ours and wanted; modes 0600
and 0700, synced, and the folder appears whole or not at all. While the copy is made no vector is written: what the
database copy calls searchable is in the vectors' copy. Whatever else a restored index lacks, its first start finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.orchestrator.backup_parts import BackupParts, part_of
from msearchd.store.client import StoreProcess

log = structlog.get_logger(__name__)

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """A backup that is complete."""

    size_bytes: int
    has_vectors: bool
    took_s: float


class _Abandoned(Exception):  # noqa: N818 - never leaves this module
    """The caller went away."""


class Backup:
    """One at a time; owns nothing."""

    def __init__(self, *, database: Database, store: StoreProcess, data_dir: Path) -> None:
        self._database = database
        self._store = store
        self._data_dir = data_dir
        self._parts = BackupParts(data_dir)
        self._one = asyncio.Lock()

    async def sweep(self) -> None:
        """Remove what a backup left that was killed with an earlier daemon. Never raises: the next backup tries again."""
        async with self._one:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._parts.sweep)

    async def run(self, target: Path, *, has_vectors: bool) -> Copied:
        """Write it. Raises BadRequest: it exists, has no parent, or lies in data_dir; RetryLater: it cannot be written.

        Cancelled here, what was written is removed.
        """
        began = time.monotonic()
        async with self._one:
            await asyncio.to_thread(self._check, target)
            part = part_of(target)
            try:
                await asyncio.to_thread(self._parts.sweep)
                async with self._made(part):
                    is_copied = await self._fill(part, has_vectors=has_vectors)
                    size = await asyncio.to_thread(_size_of, part)
                    await asyncio.to_thread(_publish, part, target)
            except OSError as error:
                message = f"cannot write {target}: {error.strerror or error}"
                raise errors.RetryLater(message, hint="check the folder's permissions and free space") from error
        copied = Copied(size, is_copied, round(time.monotonic() - began, 3))
        log.info("backup written", path=str(target), size_bytes=size, vectors=is_copied, took_s=copied.took_s)
        return copied

    def _check(self, target: Path) -> None:
        if os.path.lexists(target):
            message = f"{target} exists already"
            raise errors.BadRequest(message, hint="name a folder that is not there yet")
        if not target.parent.is_dir():
            message = f"there is no folder {target.parent}"
            raise errors.BadRequest(message, hint="make it first, or name another")
        if target.resolve().is_relative_to(self._data_dir.resolve()):
            message = f"{target} is in msearchd's own data folder"
            raise errors.BadRequest(message, hint="name a folder elsewhere, best on another disk")

    @contextlib.asynccontextmanager
    async def _made(self, part: Path) -> AsyncIterator[None]:
        """`BackupParts.made` in threads; cancelled at any moment, it is left as it must be."""
        made = self._parts.made(part)
        entering = asyncio.ensure_future(asyncio.to_thread(made.__enter__))
        try:
            await asyncio.shield(entering)
            yield
        finally:
            await asyncio.wait({entering})
            if entering.exception() is None:
                await asyncio.shield(asyncio.to_thread(made.__exit__, None, None, None))

    async def _fill(self, part: Path, *, has_vectors: bool) -> bool:
        if has_vectors:
            async with self._store.held_still() as vectors:
                if vectors is not None:
                    await _uninterrupted(lambda gone: _copy_tree(vectors, part / "vectors", gone))
                await self._database.backup(part / "msearchd.db")
                return vectors is not None
        await self._database.backup(part / "msearchd.db")
        return False


async def _uninterrupted(work: Callable[[threading.Event], None]) -> None:
    """Run *work* in a thread; cancelled, tell it so and wait: nobody removes what a thread still writes."""
    is_gone = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(work, is_gone))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        is_gone.set()
        with contextlib.suppress(_Abandoned, OSError):
            await running
        raise


def _copy_tree(source: Path, target: Path, is_gone: threading.Event) -> None:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _copy_tree(Path(entry.path), target / entry.name, is_gone)
            elif entry.is_file(follow_symlinks=False):
                _copy_file(Path(entry.path), target / entry.name, is_gone)
    _sync(target)


def _copy_file(source: Path, target: Path, is_gone: threading.Event) -> None:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source.open("rb") as reading, open(fd, "wb") as writing:
        while block := reading.read(_BLOCK):
            if is_gone.is_set():
                raise _Abandoned
            if block.count(0) == len(block):  # preallocated space: left as a hole
                writing.seek(len(block), os.SEEK_CUR)
            else:
                writing.write(block)
        writing.truncate()
        writing.flush()
        os.fsync(writing.fileno())


def _publish(part: Path, target: Path) -> None:
    _sync(part)
    part.rename(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size_of(folder: Path) -> int:
    """Bytes on the disk (holes are none)."""
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*"))
