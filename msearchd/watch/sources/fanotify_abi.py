"""fanotify(7) as it is, in the mode that reports a directory's handle and a name (Linux 5.9). Needs privileges to be of use."""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

# The bits that inotify has too have the same values.
MODIFY: Final = 0x00000002
ATTRIB: Final = 0x00000004
CLOSE_WRITE: Final = 0x00000008
MOVED_FROM: Final = 0x00000040
MOVED_TO: Final = 0x00000080
CREATE: Final = 0x00000100
DELETE: Final = 0x00000200
Q_OVERFLOW: Final = 0x00004000
ONDIR: Final = 0x40000000

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE, _REPORT_DFID_NAME = 0x1, 0x2, 0x10, 0xC00
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_O_PATH: Final = 0o10000000
_INFO_DFID_NAME: Final = 2

#: struct fanotify_event_metadata: length of the event, version, reserved, length of this part, mask, fd, pid.
_EVENT: Final = struct.Struct("=IBBHQii")
#: struct fanotify_event_info_fid up to the handle: type, pad, length, file system id, bytes of the handle, its type.
_INFO: Final = struct.Struct("=BBHQIi")
_AT_HANDLE_BYTES: Final = 12  # offset of `handle_bytes` in _INFO


class Event(NamedTuple):
    """What happened to *name* in a directory. `handle`: struct file_handle of the directory, ready for `open_handle`."""

    mask: int
    file_system: int
    handle: bytes
    name: bytes


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fanotify_mark.argtypes = [ctypes.c_int, ctypes.c_uint, ctypes.c_uint64, ctypes.c_int, ctypes.c_char_p]
    return libc


def init() -> int:
    """A new descriptor, non-blocking, whose queue has no end. Raises OSError (EPERM: without CAP_SYS_ADMIN)."""
    return _checked(_libc().fanotify_init(_CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE | _REPORT_DFID_NAME, os.O_RDONLY))


def mark_file_system(fd: int, mask: int, directory: int) -> None:
    """Tell of all of the file system that the open *directory* lies on; again is no error. Raises OSError."""
    _checked(_libc().fanotify_mark(fd, _MARK_ADD | _MARK_FILESYSTEM, mask, directory, None))


def mark_folder(fd: int, mask: int, path: bytes) -> None:
    """Tell of the entries of one folder. Raises OSError."""
    _checked(_libc().fanotify_mark(fd, _MARK_ADD, mask, -100, path))


def open_handle(mount: int, handle: bytes) -> int:
    """A descriptor (O_PATH) of what *handle* means on the file system of the open *mount*.

    Raises OSError: ESTALE where it is no more, EPERM without CAP_DAC_READ_SEARCH.
    """
    buffer = ctypes.create_string_buffer(handle, len(handle))
    return _checked(_libc().open_by_handle_at(mount, buffer, _O_PATH | os.O_CLOEXEC))


def parse(buffer: bytes) -> Iterator[Event]:
    """Events of one read, which holds whole ones. One that names no directory (an overflow) has an empty handle."""
    at = 0
    while at + _EVENT.size <= len(buffer):
        length, _, _, head, mask, _, _ = _EVENT.unpack_from(buffer, at)
        if length < _EVENT.size:
            return
        yield _with_place(buffer[at + head : at + length], mask)
        at += length


def _with_place(info: bytes, mask: int) -> Event:
    at = 0
    while at + _INFO.size <= len(info):
        kind, _, length, file_system, handle_bytes, _ = _INFO.unpack_from(info, at)
        if kind == _INFO_DFID_NAME:
            end = at + _INFO.size + handle_bytes
            name = info[end : at + length].split(b"\0", 1)[0]
            return Event(mask, file_system, info[at + _AT_HANDLE_BYTES : end], name)
        at += max(length, 4)
    return Event(mask, 0, b"", b"")


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
