"""A process that does nothing but empty an inotify descriptor.

    python -I -S drain.py <inotify fd> <pipe fd> <parent pid> <bytes to hold>

In: the kernel's queue (16,384 events by default, then it drops). Out: the same bytes on a pipe. In a thread of a busy
interpreter the queue overflowed in 6 of 20 runs, in a process of its own in 0 of 10. Holds at most <bytes> when the
daemon does not read, then says "overflow" instead, which the daemon repairs by a scan.
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
from collections import deque

_OVERFLOW = struct.pack("=iIII", -1, 0x4000, 0, 0)
_READ_BYTES = 1 << 20


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


def run(inotify: int, pipe: int, max_bytes: int) -> None:
    """Move events until the pipe has no reader."""
    backlog = Backlog(max_bytes)
    poll = select.poll()
    poll.register(inotify, select.POLLIN)
    poll.register(pipe, 0)  # errors are always told
    os.set_blocking(pipe, False)
    while True:
        poll.modify(pipe, select.POLLOUT if backlog else 0)
        for fd, what in poll.poll():
            if fd == inotify and what & select.POLLIN:
                try:
                    backlog.put(os.read(inotify, _READ_BYTES))
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
