"""Let a disk answer several questions at once: threads that read what a slice will read next, and throw it away.

In: a root and the folders that are to be listed, in order. Out: nothing; the kernel has them in its caches when the scanner comes.
Only where the last slice had to wait for blocks of a disk: out of the caches it would be work for nothing.
No thread and no descriptor outlives the slice. One that hangs in a dead share holds the slice, as the scanner itself would.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from msearchd.watch import paths

try:
    import resource
except ImportError:  # Windows
    _WHO: int | None = None
else:
    _WHO = getattr(resource, "RUSAGE_THREAD", None)

#: Beside the scanner's own: four read a cold disk 1.6 to 2 times as fast as one, eight no faster (research, §3.1).
_THREADS: Final = 3
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def blocks_read() -> int:
    """How often this thread has had to wait for blocks of a disk; 0 where the system does not say."""
    return 0 if _WHO is None else resource.getrusage(_WHO).ru_inblock


class ReadAhead:
    """A context manager around a slice. Without folders it does nothing."""

    def __init__(self, root: bytes, folders: Sequence[bytes]) -> None:
        self._root = root
        self._left = deque(folders)
        self._is_over = False
        count = _THREADS if len(folders) > _THREADS else 0
        self._threads = [threading.Thread(target=self._run, name="watch-ahead", daemon=True) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._is_over:
            try:
                path = self._left.popleft()
            except IndexError:
                return
            with contextlib.suppress(OSError):  # the scanner finds out by itself
                self._read(paths.join(self._root, path))

    def _read(self, path: bytes) -> None:
        fd = os.open(path, _FLAGS)
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    if self._is_over:
                        return
                    if not entry.is_dir(follow_symlinks=False):
                        entry.stat(follow_symlinks=False)
        finally:
            os.close(fd)
