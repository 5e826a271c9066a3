"""One process per data directory: an exclusive flock on a file in it, which the kernel drops when the process dies.

flock, not lockf: a POSIX lock is lost when any other descriptor of the same file is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from msearchd.errors import Misconfigured


class InstanceLock:
    """The held lock. Keep it while the directory is in use; `release` or the end of the process gives it up."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, data_dir: Path) -> InstanceLock:
        """Take the lock of *data_dir* (made with mode 0700 if need be), or raise Misconfigured naming who holds it."""
        path = data_dir / "lock"
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"the data folder {data_dir} cannot be used: {error.strerror}"
            raise Misconfigured(
                message, key="data_dir", hint="choose another data_dir or correct its permissions"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            message = f"the data folder {data_dir} is in use by another msearchd (process {holder})"
            raise Misconfigured(message, key="data_dir", hint="stop it first, or choose another data_dir") from None
        except OSError as error:
            os.close(fd)
            message = f"the data folder {data_dir} cannot be locked: {error.strerror}"
            raise Misconfigured(message, key="data_dir", hint="put data_dir on a local disk") from error
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, only our number is not told
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        return cls(path, fd)

    def release(self) -> None:
        """Give the lock up. The file stays: removing it would let two processes lock two files of one name."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1
