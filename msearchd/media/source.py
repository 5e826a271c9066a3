"""One file, opened once: the only place of the extract worker that touches the user's files.

In: a path as bytes. Out: a `Source` with a stat fingerprint that held when it was opened; `check` proves that it still
holds. Never follows a symbolic link, never blocks on a pipe, never changes an access time where the system allows
that, never writes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from msearchd import errors
from msearchd.domain.asset import StatFingerprint

_READ_BYTES: Final = 1024 * 1024
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
#: The disk, the share or the system is in trouble, not the file.
_TRANSIENT: Final = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
    errno.EBUSY,
}


class Changed(Exception):  # noqa: N818 - an event, told to the daemon as one
    """The file is not, or no longer, the bytes that were asked for. Never leaves the worker as an error."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open regular file. `name` is the last part of its path, for people and for extensions."""

    path: bytes
    fd: int
    fingerprint: StatFingerprint

    @property
    def name(self) -> str:
        """File name; bytes that are no UTF-8 appear as replacement characters."""
        return self.path.rpartition(b"/")[2].decode("utf-8", "replace")

    @property
    def size(self) -> int:
        """Bytes, as of the opening."""
        return self.fingerprint.size

    @property
    def _block_bytes(self) -> int:
        # One more than the file has: a small file costs two calls and no megabyte of fresh memory.
        return min(_READ_BYTES, self.size + 1)

    def read(self, limit: int) -> bytes:
        """The first *limit* bytes."""
        with file_errors():
            parts, have = [], 0
            while have < limit and (part := os.pread(self.fd, min(self._block_bytes, limit - have), have)):
                parts.append(part)
                have += len(part)
            return b"".join(parts)

    def blocks(self) -> Iterator[bytes]:
        """The whole file in blocks of at most 1 MiB."""
        with file_errors():
            place = 0
            while block := os.pread(self.fd, self._block_bytes, place):
                place += len(block)
                yield block

    def tail(self, limit: int) -> bytes:
        """The last *limit* bytes."""
        with file_errors():
            return os.pread(self.fd, limit, max(0, self.size - limit))

    def stream(self) -> io.BufferedReader:
        """A seekable binary file from the start; closing it leaves the source open."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        return open(self.fd, "rb", closefd=False)

    def check(self) -> None:
        """Raise Changed unless the open file and its path are still what was opened, NotFound if the path is gone."""
        with file_errors():
            if StatFingerprint.of(os.fstat(self.fd)) != self.fingerprint:
                raise Changed("it changed while it was read")
            try:
                now = StatFingerprint.of(os.lstat(self.path))
            except FileNotFoundError:
                # Deleted or moved: the bytes are those of the fingerprint, yet nobody could open the hit.
                raise errors.NotFound("it vanished while it was read") from None
            if not self.fingerprint.same_bytes(now):
                raise Changed("another file took its place while it was read")


@contextlib.contextmanager
def opened(path: bytes) -> Iterator[Source]:
    """Open *path*. Raises NotFound (vanished), BadAsset (no regular file, unreadable), RetryLater (the disk is in
    trouble).
    """
    with file_errors():
        _refuse_unless_file(os.lstat(path).st_mode)  # before opening: some devices act when opened
        fd = _open(path)
    try:
        status = os.fstat(fd)
        _refuse_unless_file(status.st_mode)
        yield Source(path, fd, StatFingerprint.of(status))
    finally:
        os.close(fd)


def _open(path: bytes) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(PermissionError):  # only the owner may ask for it
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    return os.open(path, flags)


def _refuse_unless_file(mode: int) -> None:
    if not stat.S_ISREG(mode):
        message = f"it is {_KINDS.get(stat.S_IFMT(mode), 'a special file')}, not a file"
        raise errors.BadAsset(message)


@contextlib.contextmanager
def file_errors() -> Iterator[None]:
    """Translate OSError of the user's file into our verbs."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise errors.NotFound("it is not there any more") from error
        if error.errno in _TRANSIENT:
            message = f"it cannot be read now: {reason}"
            raise errors.RetryLater(message, after_s=10.0, hint="check the disk or the network share") from error
        hint = "allow the daemon's user to read it" if error.errno in {errno.EACCES, errno.EPERM} else ""
        message = f"it cannot be read: {reason}"
        raise errors.BadAsset(message, hint=hint) from error
