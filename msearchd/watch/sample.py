"""Is this the disk that we know? A sample of known files is looked for: a disk is named best by what it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import paths
from msearchd.watch.ports import KnownTree

_MAX_FOLDERS: Final = 64
_PER_FOLDER: Final = 8
_MAX_BATCHES: Final = 8
#: Of the sample, so many must be there. A disk in use loses and gains files; a strange one shares next to none.
_SHARE: Final = 0.5
_TICK_NS: Final = 2_000_000_000  # FAT's; a copy to another file system rounds times


async def sample(known: KnownTree, root: RootId, below: bytes) -> dict[bytes, StatFingerprint]:
    """Up to some 500 known files under *below*, spread over its folders; path relative to the root -> fingerprint."""
    folders: list[bytes] = []
    batches = 0
    async for batch in known.directories(root, below):
        folders += [path for path, _ in batch]
        batches += 1
        if batches >= _MAX_BATCHES:
            break
    out: dict[bytes, StatFingerprint] = {}
    for folder in folders[:: max(1, len(folders) // _MAX_FOLDERS)]:
        files = await known.files(root, folder)
        for name in sorted(files)[:: max(1, len(files) // _PER_FOLDER)]:
            out[paths.join(folder, name)] = files[name]
    return out


def is_there(base: bytes, files: Mapping[bytes, StatFingerprint]) -> bool:
    """True if half of *files* stand below *base* with their size and time. Touches the disk."""
    return sum(_matches(paths.join(base, path), file) for path, file in files.items()) >= _SHARE * len(files)


def _matches(path: bytes, known: StatFingerprint) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return status.st_size == known.size and abs(status.st_mtime_ns - known.mtime_ns) <= _TICK_NS
