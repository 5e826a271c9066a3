"""Child side of the fork server: import, then fork on request. One thread, no operation, no device. The parent ends it.

In: requests {"op": "fork"}, each with two descriptors on the second socket: the worker's wire and its stderr.
Out: {"pid"} when it runs, {"status"} when it has ended (negative: the signal).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from msearchd.aio import boot, wire

_WORKER_MODULE = "msearchd.inference.worker.main"


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Import what *start* names, then serve until the parent goes."""
    for name in start["preload"]:
        # What cannot be imported here fails in the worker, which says what to type.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a worker must not touch, and so copy, the pages that all share
    threads = _threads()
    facts = {"can_fork": threads == 1, "threads": threads}
    wire.send_frame(sock, {"id": 0, "ok": True, "more": False, "args": facts})
    _Server(sock, socket.socket(fileno=start["descriptors"])).run()


def _threads() -> int:
    """Threads of this process as the kernel counts them: libraries start some that Python does not know."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return -1


class _Server:
    def __init__(self, sock: socket.socket, descriptors: socket.socket) -> None:
        self._sock = sock
        self._descriptors = descriptors
        self._workers: dict[int, int] = {}  # process id -> request that asked for it
        self._parent = os.getpid()
        # A signal that arrives before the wait begins still ends it: it leaves a byte here.
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        while True:
            readable, _, _ = select.select([self._sock, self._woken], [], [])
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            self._reap()
            if self._sock in readable:
                try:
                    header, _ = wire.recv_frame(self._sock)
                except (EOFError, OSError):
                    return
                if header["op"] == "fork":
                    self._fork(header["id"])

    def _fork(self, request: int) -> None:
        _, fds, _, _ = socket.recv_fds(self._descriptors, 16, 2)
        pid = os.fork()
        if pid == 0:
            self._become_worker(*fds)
        with contextlib.suppress(OSError):  # both sides do it, so that it holds whoever runs first
            os.setpgid(pid, pid)
        for fd in fds:
            os.close(fd)
        self._workers[pid] = request
        wire.send_frame(self._sock, {"id": request, "ok": True, "more": True, "args": {"pid": pid}})

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (request := self._workers.pop(pid, None)) is not None:
                args = {"status": os.waitstatus_to_exitcode(status)}
                wire.send_frame(self._sock, {"id": request, "ok": True, "more": False, "args": args})

    def _become_worker(self, wire_fd: int, stderr_fd: int) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            boot.die_with_parent(self._parent)
            os.dup2(stderr_fd, 2)
            os.close(stderr_fd)
            for held in (self._sock, self._descriptors, self._woken, self._wake):
                held.close()
            boot.run_module(_WORKER_MODULE, socket.socket(fileno=wire_fd))
            status = 0
        except SystemExit as end:
            status = _status(end)
        except BaseException:  # noqa: BLE001 - this process must never return into the server's loop
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)


def _status(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    os.write(2, f"{end.code}\n".encode())
    return 1
