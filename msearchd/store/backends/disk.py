"""The disk under the embedded engine: free space, one owner per folder, files that are whole or absent.

A full disk kills the engine with SIGBUS (its files are sparse maps), so free space is asked for before every write.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from msearchd import errors

_MIB = 1024 * 1024
#: The engine preallocates maps sparsely; writes and deletes need room whatever the settings say.
WRITE_FLOOR_BYTES = 64 * _MIB
DELETE_FLOOR_BYTES = 32 * _MIB
#: Below this even loading may hit a hole in a map.
LOAD_FLOOR_BYTES = 16 * _MIB
_RETRY_AFTER_S = 30.0


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write on the disk of *folder*. Raises RetryLater where it is gone."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise errors.RetryLater(
            f"{folder} cannot be used: {error.strerror}", after_s=_RETRY_AFTER_S, hint="check the disk of data_dir"
        ) from error
    return found.f_bavail * found.f_frsize


def need_free(folder: Path, need_bytes: int, *, purpose: str) -> None:
    """Raise RetryLater with the missing amount where less than *need_bytes* is free."""
    free = free_bytes(folder)
    if free < need_bytes:
        missing = (need_bytes - free + _MIB - 1) // _MIB
        raise errors.RetryLater(
            f"{purpose} needs {need_bytes // _MIB} MB free on the disk of {folder}, {free // _MIB} MB are free",
            after_s=_RETRY_AFTER_S,
            hint=f"free {missing} MB on that disk, or move data_dir to another; work goes on by itself",
        )


def disk_bytes(folder: Path) -> int:
    """Bytes that the files under *folder* occupy: blocks, for the maps are sparse and their sizes say nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # the engine removes segment files while we walk
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def write_whole(path: Path, data: bytes) -> None:
    """Write *path* so that after a power cut it is the old or the new file, never half of one."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in *folder* survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(folder: Path) -> None:
    """Remove *folder* in one visible step: it is renamed first, so a killed removal leaves no half a shard behind."""
    if not folder.exists():
        return
    doomed = folder.with_name(f".doomed-{folder.name}-{os.getpid()}-{time.monotonic_ns()}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def own_folder(folder: Path, *, deadline_s: float = 2.0) -> IO[bytes]:
    """Take the lock of *folder* (created 0700); held until the returned file is closed or the process ends.

    The engine itself takes no lock without its log, and two writers would ruin the files. Raises RetryLater where
    another process holds it for *deadline_s* (the one that ends now needs a moment), Misconfigured where it cannot be
    made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        file = (folder / ".lock").open("a+b")
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        if full:
            raise errors.RetryLater(
                f"cannot open {folder}: the disk is full", after_s=_RETRY_AFTER_S, hint="free some space on that disk"
            ) from error
        raise errors.Misconfigured(
            f"cannot use {folder} for vectors: {error.strerror}",
            key="data_dir",
            hint="check the folder's owner and permissions",
        ) from error
    give_up_at = time.monotonic() + deadline_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > give_up_at:
                file.close()
                raise errors.RetryLater(
                    f"another process uses the vectors in {folder}",
                    after_s=5.0,
                    hint="stop the other msearchd, or give this one its own data_dir",
                ) from error
            time.sleep(0.05)
        else:
            return file
