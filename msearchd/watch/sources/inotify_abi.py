"""inotify(7) as it is: constants, three system calls, the layout of an event. Linux only; loads libc on first use."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import functools
import os
import struct
import termios
from pathlib import Path
from typing import Any, Final

MODIFY: Final = 0x00000002
ATTRIB: Final = 0x00000004
CLOSE_WRITE: Final = 0x00000008
MOVED_FROM: Final = 0x00000040
MOVED_TO: Final = 0x00000080
CREATE: Final = 0x00000100
DELETE: Final = 0x00000200
DELETE_SELF: Final = 0x00000400
MOVE_SELF: Final = 0x00000800
UNMOUNT: Final = 0x00002000
Q_OVERFLOW: Final = 0x00004000
IGNORED: Final = 0x00008000
ONLYDIR: Final = 0x01000000
DONT_FOLLOW: Final = 0x02000000
EXCL_UNLINK: Final = 0x04000000
ISDIR: Final = 0x40000000
_CLOEXEC: Final = 0o2000000
_NONBLOCK: Final = 0o4000

#: struct inotify_event without its name: wd, mask, cookie, length of the name with its padding.
HEADER: Final = struct.Struct("=iIII")
#: Not the kernel's: the watch of the events by which the drain tells the time (drain.py, which imports nothing of us).
STAMP_WD: Final = -2
OVERFLOW_EVENT: Final = HEADER.pack(-1, Q_OVERFLOW, 0, 0)


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)
    return libc


def init() -> int:
    """A new inotify descriptor, non-blocking. Raises OSError (EMFILE: too many instances)."""
    fd: int = _libc().inotify_init1(_CLOEXEC | _NONBLOCK)
    if fd < 0:
        raise _error()
    return fd


def add_watch(fd: int, path: bytes, mask: int) -> int:
    """Watch *path*; the same inode gives the same descriptor. Raises OSError (ENOSPC: no watches left)."""
    wd: int = _libc().inotify_add_watch(fd, path, mask)
    if wd < 0:
        raise _error()
    return wd


def rm_watch(fd: int, wd: int) -> None:
    """Stop a watch; one that the kernel removed already is no error."""
    if _libc().inotify_rm_watch(fd, wd) < 0 and ctypes.get_errno() != errno.EINVAL:
        raise _error()


def unread_bytes(fd: int) -> int:
    """Bytes of events that nobody has read yet."""
    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def watch_limit() -> int:
    """fs.inotify.max_user_watches; 0 if unknown."""
    try:
        return int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    except (OSError, ValueError):
        return 0


def _error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
