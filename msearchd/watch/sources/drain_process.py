"""Parent side of the drain: start it, read its pipe in small bites, know when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msearchd import errors

_SCRIPT: Final = Path(__file__).with_name("drain.py")
_HOLD_BYTES: Final = 64 * 1024 * 1024  # 1.5 million events while the daemon is busy; then a scan is cheaper
_BITE_BYTES: Final = 64 * 1024  # about 2,000 events, 3 ms of the loop


class DrainProcess:
    """One drain. `on_events` gets bytes and says how many of them were whole events; `on_end` is called once, unless `stop` was."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        pipe: int,
        on_events: Callable[[bytes], int],
        on_end: Callable[[str], None],
    ) -> None:
        self._process = process
        self._pipe = pipe
        self._on_events, self._on_end = on_events, on_end
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._on_readable)

    @classmethod
    async def start(
        cls, inotify: int, on_events: Callable[[bytes], int], on_end: Callable[[str], None]
    ) -> DrainProcess:
        """Start it. Raises RetryLater where the system cannot start a process now."""
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(_SCRIPT), str(inotify), str(theirs), str(os.getpid()), str(_HOLD_BYTES),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(inotify, theirs), process_group=0, env={},
            )  # fmt: skip
        except OSError as error:
            os.close(ours)
            message = f"cannot start the event reader: {error.strerror}"
            raise errors.RetryLater(message, after_s=5) from error
        finally:
            os.close(theirs)
        return cls(process, ours, on_events, on_end)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it now; its end is told as any other."""
        if self._process.returncode is None:
            # Not Popen.kill: it polls, and would reap the child under the loop's own waiting thread.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End and reap it; its end is not told."""
        self._is_stopped = True
        self._close_pipe()
        self.kill()
        await self._process.wait()

    def _on_readable(self) -> None:
        try:
            chunk = os.read(self._pipe, _BITE_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._close_pipe()
            if not self._is_stopped:
                self._on_end(f"process {self.pid} ended")
            return
        buffer = self._rest + chunk
        self._rest = buffer[self._on_events(buffer) :]

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
