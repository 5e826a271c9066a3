"""Which regular files are known by name only, and why: their bytes are never read.

In: a stat and the descriptor of the folder. Out: a reason in words, or "". Opens nothing: on a cloud drive (FUSE, a share)
opening alone may fetch the bytes.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import Final

from msearchd.watch.patterns import Rule

_PLACEHOLDER_MIN_BYTES: Final = 16 * 4096  # smaller files may live inside their inode and own no block
_SF_DATALESS: Final = 0x40000000  # macOS <sys/stat.h>: the bytes are in the cloud
_HAS_FLAGS: Final = sys.platform == "darwin"


def special_rule(mode: int) -> Rule | None:
    """The rule that leaves out what is neither file nor directory."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if stat.S_ISLNK(mode):
        return Rule("symlink", "built-in: links are not followed")
    return Rule("special file", "built-in: sockets, pipes and devices hold no bytes of their own")


def reason_to_leave(fd: int, name: bytes | str, status: os.stat_result, *, max_file_bytes: int) -> str:
    """Why the bytes of a regular file are not to be read; empty if they are."""
    if status.st_size > max_file_bytes:
        return f"larger than {_human(max_file_bytes)}"
    if (not status.st_blocks or _HAS_FLAGS) and is_placeholder(fd, status):
        return "cloud placeholder"
    if _UID and not _mode_allows(status) and not os.access(name, os.R_OK, dir_fd=fd):
        return "unreadable: EACCES"
    return ""


def is_placeholder(fd: int, status: os.stat_result) -> bool:
    """True if reading would fetch the bytes from elsewhere, or there are none: SF_DATALESS, or a file without a block.

    Told by stat alone, before anything is opened. A small file may live in its inode. A file system that counts no blocks
    at all (statvfs says so) proves nothing by them; its files are read. A file all of hole, on a disk, has nothing to read.
    """
    if _HAS_FLAGS:  # macOS: compressed files may own no block
        return bool(status.st_flags & _SF_DATALESS)  # type: ignore[attr-defined,unused-ignore]
    if status.st_size <= _PLACEHOLDER_MIN_BYTES or status.st_blocks:
        return False
    try:
        return os.fstatvfs(fd).f_blocks > 0
    except OSError:
        return True


_UID: Final = os.geteuid()
_GROUPS: Final = frozenset({os.getegid(), *os.getgroups()})


def _mode_allows(status: os.stat_result) -> bool:
    """What the mode bits alone say; where they say no, an access list may still say yes."""
    if status.st_uid == _UID:
        return bool(status.st_mode & stat.S_IRUSR)
    if status.st_gid in _GROUPS:
        return bool(status.st_mode & stat.S_IRGRP)
    return bool(status.st_mode & stat.S_IROTH)


def _human(count: int) -> str:
    for unit, size in (("GB", 1024**3), ("MB", 1024**2), ("KB", 1024)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"
