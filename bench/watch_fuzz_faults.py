"""What a fuzz sequence lets go wrong: calls that fail by chance, and a kernel queue that holds nearly nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msearchd.watch import disk, root_keeper
from msearchd.watch.sources import inotify_abi

_QUEUE_LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
_LOCK = Path(tempfile.gettempdir()) / "msearchd-bench-inotify-queue.lock"


@dataclass
class Faults:
    """Makes calls fail by chance while `is_on`."""

    rate: float
    chance: random.Random
    is_on: bool = True
    counts: dict[str, int] = field(default_factory=dict)

    def strikes(self) -> bool:
        """Whether this call fails."""
        return bool(self.rate) and self.is_on and self.chance.random() < self.rate

    def install(self) -> None:
        """Let watches, opening and listing of folders below a root fail. Roots themselves are opened."""
        if not self.rate:
            return
        inotify_abi.add_watch = self._failing(
            inotify_abi.add_watch, (errno.ENOSPC, errno.ENOMEM), lambda *a: a[1].startswith(b"/proc/")
        )
        walk = disk.Walk
        walk._open = self._failing(walk._open, (errno.EACCES, errno.EIO), lambda *a: bool(a[1]))
        root_keeper._RETRY_UNREADABLE_S = 0.3

    def _failing(
        self, real: Callable[..., Any], codes: tuple[int, ...], may: Callable[..., bool]
    ) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if may(*args) and self.strikes():
                code = self.chance.choice(codes)
                self.counts[errno.errorcode[code]] = self.counts.get(errno.errorcode[code], 0) + 1
                raise OSError(code, os.strerror(code))
            return real(*args)

        return call


def can_shrink_queue() -> bool:
    """Whether this process may set the limit of inotify's queues."""
    return os.access(_QUEUE_LIMIT, os.W_OK)


def with_queue_of(events: int, init: Callable[[], int]) -> Callable[[], int]:
    """*init*, with the limit set for its one call: a descriptor keeps the limit that it was made with."""

    def call() -> int:
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = _QUEUE_LIMIT.read_text()
            try:
                _QUEUE_LIMIT.write_text(str(events))
                return init()
            finally:
                _QUEUE_LIMIT.write_text(before)

    return call
