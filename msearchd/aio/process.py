"""One child process: start by exec, talk over a socketpair, end for sure.

Never forks with threads, never uses preexec_fn (it froze a 2 GB process for 113 ms); starts from the loop thread only.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio.link import Link

log = structlog.get_logger(__name__)

_BOOT = Path(__file__).with_name("boot.py")
_STDERR_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use. It sets them itself before it imports anything heavy."""

    memory_bytes: int | None = None  # address space (RLIMIT_AS); None for children with large sparse maps
    nice: int = 0
    oom_score_adj: int | None = 500  # the kernel takes a child before the daemon

    def as_args(self) -> dict[str, Any]:
        """Plain values for the hello frame."""
        return {"memory_bytes": self.memory_bytes, "nice": self.nice, "oom_score_adj": self.oom_score_adj}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """How to start a child: `module` has `main(sock, args)`, which sets up and then runs an aio.serve.Server."""

    name: str
    module: str
    start: Mapping[str, Any] = field(default_factory=dict)  # plain values handed to main()
    python: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    ready_deadline_s: float = 60.0
    stop_grace_s: float = 5.0
    pass_fds: tuple[int, ...] = ()  # further descriptors that the child inherits under the same numbers


class Child:
    """One running child process. Made by `start`; ended by `stop`, which always reaps it."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.facts: Mapping[str, Any] = {}
        self._process = process
        self._link: Link | None = None
        self._stderr_tail: collections.deque[bytes] = collections.deque(maxlen=40)
        self._is_killed = False
        self._reaping: asyncio.Future[None] | None = None
        #: Loop time of its end; None while it runs.
        self.ended_at: float | None = None
        self._end_watch = asyncio.create_task(self._watch_end(), name=f"end:{spec.name}")
        self._stderr_reading = asyncio.create_task(self._read_stderr(), name=f"stderr:{spec.name}")

    @classmethod
    async def start(cls, spec: ChildSpec) -> Child:
        """Start the process and wait until it is ready; a start that fails leaves no process behind.

        Raises the error that the child tells, LinkLost where it ends first, DeadlineExpired after ready_deadline_s,
        Misconfigured where the interpreter cannot be started.
        """
        ours, theirs = socket.socketpair()
        # Our own pipe: asyncio's wait() does not return before every holder of its pipe is gone, grandchildren included.
        read_end, write_end = os.pipe()
        try:
            stderr = await _open_reader(read_end)
            process = await asyncio.create_subprocess_exec(
                spec.python,
                "-I",
                str(_BOOT),
                spec.module,
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=write_end,
                pass_fds=(theirs.fileno(), *spec.pass_fds),
                process_group=0,
                env={**_inherited_env(), **spec.env},
            )
        except OSError as error:
            ours.close()
            message = f"cannot start {spec.name} with {spec.python}: {error.strerror}"
            hint = "check the interpreter's path"
            raise errors.Misconfigured(message, key=f"python:{spec.python}", hint=hint) from error
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(write_end)  # without a child this is the end of the reader too
        process.stderr = stderr
        return await cls.attach(spec, process, ours)

    @classmethod
    async def attach(cls, spec: ChildSpec, process: asyncio.subprocess.Process, ours: socket.socket) -> Child:
        """Take over a process that was just started, with our end of its wire; as `start` from there on."""
        child = cls(spec, process)
        try:
            hello = {"start": dict(spec.start), "limits": spec.limits.as_args()}
            child._link, child.facts = await Link.open(
                ours,
                hello,
                name=spec.name,
                deadline_s=spec.ready_deadline_s,
                describe_end=child.describe_end,
                settle_end=child._settle_end,
            )
        except BaseException:
            await child.stop(grace_s=0)
            raise
        log.debug("child started", child=spec.name, pid=child.pid)
        return child

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """True while the process runs and its wire is open."""
        is_running = self._process.returncode is None and not self._is_killed
        return is_running and self._link is not None and self._link.is_open

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return self._link.in_flight if self._link else 0

    @property
    def link(self) -> Link:
        """The wire; only after a successful start."""
        if self._link is None:
            message = f"{self.spec.name} is not started"
            raise errors.Bug(message)
        return self._link

    def resident_bytes(self) -> int:
        """Resident memory now; 0 if it cannot be read."""
        return resident_bytes(self.pid)

    def describe_end(self) -> str:
        """Why it ended, with the tail of its stderr."""
        code = self._process.returncode
        if code is None:
            reason = "its connection closed"
        elif code < 0:
            reason = f"killed by {_signal_name(-code)}"
        else:
            reason = f"exit status {code}"
        tail = b"".join(self._stderr_tail)[-_STDERR_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{self.spec.name}: {reason}" + (f"; last words: {tail}" if tail else "")

    async def wait_ended(self) -> None:
        """Return once the process has ended and is reaped."""
        await self._process.wait()

    async def stop(self, *, grace_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL to its process group after the grace time; reaped on every path out."""
        grace_s = self.spec.stop_grace_s if grace_s is None else grace_s
        try:
            if self._process.returncode is None and grace_s > 0:
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await self._process.wait()
        finally:
            if self._process.returncode is None:
                self._signal(signal.SIGKILL)
            self._reaping = asyncio.ensure_future(self._reap())
            await asyncio.shield(self._reaping)

    def kill(self) -> None:
        """SIGKILL now, without waiting; whoever waits on it hears LinkLost."""
        self._is_killed = True
        self._signal(signal.SIGKILL)

    async def _reap(self) -> None:
        await self._process.wait()
        if self._link is not None:
            await self._link.close()
        await self._end_watch
        # Somebody who left the group may still hold the pipe open: do not wait for its end for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stderr_reading, timeout=0.5)

    def _signal(self, number: signal.Signals) -> None:
        # Never after its end: the number may be somebody else's by then. Never 0: that is our own group.
        if self._process.returncode is not None or self.pid <= 0:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # it has no group of its own (yet)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    async def _watch_end(self) -> None:
        await self._process.wait()
        self.ended_at = asyncio.get_running_loop().time()
        # Whatever it started goes with it. Its number is still its group's while a member lives, and at once it is
        # nobody else's: numbers are not given out again before all others have been.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.pid > 0:
                os.killpg(self.pid, signal.SIGKILL)

    async def _settle_end(self) -> None:
        """Wait until exit status and last words are known; a second at most (it may close its wire and live on)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._process.wait()
                await asyncio.wait({self._stderr_reading}, timeout=0.2)  # a grandchild may hold the pipe open

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        try:
            while chunk := await stream.read(1024):
                self._stderr_tail.append(chunk)
                text = chunk.decode(errors="replace").rstrip()
                log.debug("child stderr", child=self.spec.name, pid=self.pid, text=text)
        finally:
            if isinstance(stream, _PipeReader):
                stream.close()


class _PipeReader(asyncio.StreamReader):
    """A StreamReader that owns its pipe."""

    transport: asyncio.ReadTransport | None = None

    def close(self) -> None:
        """Close the pipe; whoever still writes into it gets EPIPE."""
        if self.transport is not None:
            self.transport.close()


async def _open_reader(fd: int) -> _PipeReader:
    reader = _PipeReader()
    pipe = os.fdopen(fd, "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    reader.transport = transport
    return reader


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, from /proc; 0 where that is not to be had."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


#: Everything else of our environment stays here: a child needs a place for temporary files, a language and a home.
# fmt: off
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE",
    "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "QDRANT_API_KEY",
)
# fmt: on


def _inherited_env() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
