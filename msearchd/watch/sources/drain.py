"""A process that does nothing but empty an inotify descriptor.

    python -I -S drain.py <inotify fd> <pipe fd> <parent pid> <bytes to hold>

In: the kernel's queue (16,384 events by default, then it drops). Out: the same bytes on a pipe. In a thread of a busy
interpreter the queue overflowed in 6 of 20 runs, in a process of its own in 0 of 10. Holds at most <bytes> when the
daemon does not read, then says "overflow" instead, which the daemon repairs by a scan. Puts the time in front of what it
reads, as an event of a watch that does not exist: a daemon that gets round to it late need not wait as much longer.
Standard library only, nothing of this package: it must start in a few milliseconds and stay small.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import sys
import time
from collections import deque

_OVERFLOW = struct.pack("=iIII", -1, 0x4000, 0, 0)
_READ_BYTES = 1 << 20
#: Not in front of each of a thousand small reads.
_STAMP_EVERY_S = 0.005


class Backlog:
    """Chunks of whole events on their way out. When full, all that is not begun gives way to one overflow event."""

    def __init__(self, max_bytes: int) -> None:
        self._chunks: deque[memoryview] = deque()
        self._max_bytes = max_bytes
        self._size = 0
        self._is_first_begun = False

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def put(self, chunk: bytes) -> None:
        """Take a chunk of whole events."""
        if self._size + len(chunk) > self._max_bytes:
            begun = self._chunks[0] if self._is_first_begun else None
            self._chunks.clear()
            if begun is not None:
                self._chunks.append(begun)  # half of it is out: the reader needs the rest to find the next event
            chunk = _OVERFLOW
            self._size = len(begun) if begun is not None else 0
        self._chunks.append(memoryview(chunk))
        self._size += len(chunk)

    def write_to(self, fd: int) -> None:
        """Write what the pipe takes. Raises BrokenPipeError when nobody reads any more."""
        while self._chunks:
            first = self._chunks[0]
            try:
                written = os.write(fd, first)
            except BlockingIOError:
                return
            self._size -= written
            if written < len(first):
                self._chunks[0] = first[written:]
                self._is_first_begun = True
                return
            self._chunks.popleft()
            self._is_first_begun = False


def stamp(now_s: float) -> bytes:
    """The event that tells the time: watch -2, microseconds of the monotonic clock as its name."""
    name = b"%d" % (now_s * 1e6)
    return struct.pack("=iIII16s", -2, 0, 0, 16, name)


def run(inotify: int, pipe: int, max_bytes: int) -> None:
    """Move events until the pipe has no reader."""
    backlog = Backlog(max_bytes)
    poll = select.poll()
    poll.register(inotify, select.POLLIN)
    poll.register(pipe, 0)  # errors are always told
    os.set_blocking(pipe, False)
    stamped_s = 0.0
    while True:
        poll.modify(pipe, select.POLLOUT if backlog else 0)
        for fd, what in poll.poll():
            if fd == inotify and what & select.POLLIN:
                now_s = time.monotonic()
                try:
                    chunk = os.read(inotify, _READ_BYTES)
                    if now_s - stamped_s >= _STAMP_EVERY_S:
                        stamped_s = now_s
                        chunk = stamp(now_s) + chunk
                    backlog.put(chunk)
                except OSError as error:
                    if error.errno not in {errno.EAGAIN, errno.EINTR}:
                        raise
            elif fd == pipe and what & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                return
        if backlog:
            backlog.write_to(pipe)


def main() -> None:
    """Start as a child; die with the parent."""
    inotify, pipe, parent, max_bytes = (int(text) for text in sys.argv[1:5])
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.getppid() != parent:
        return
    try:
        run(inotify, pipe, max_bytes)
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
