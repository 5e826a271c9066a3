"""Child processes: start by exec, talk over a socketpair, end for sure.

`Child` is one process; `KeptChild` keeps one running (lazy start, restart with back-off, idle stop).
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
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio import backoff, wire
from msearchd.aio.link import DeadlineExpired, Link, LinkLost, Reply

__all__ = ["Child", "ChildSpec", "DeadlineExpired", "KeptChild", "Limits", "LinkLost", "Reply"]

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
        self._stderr_reading = asyncio.create_task(self._read_stderr(), name=f"stderr:{spec.name}")

    @classmethod
    async def start(cls, spec: ChildSpec) -> Child:
        """Start the process and wait until it is ready. Raises its error, LinkLost or DeadlineExpired; leaves no process behind."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                spec.python,
                "-I",
                str(_BOOT),
                spec.module,
                str(theirs.fileno()),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(theirs.fileno(), *spec.pass_fds),
                process_group=0,
                env={**_inherited_env(), **spec.env},
            )
        except OSError as error:
            ours.close()
            message = f"cannot start {spec.name} with {spec.python}: {error.strerror}"
            raise errors.Misconfigured(
                message, key=f"python:{spec.python}", hint="check the interpreter's path"
            ) from error
        finally:
            theirs.close()
        return await cls.attach(spec, process, ours)

    @classmethod
    async def attach(cls, spec: ChildSpec, process: asyncio.subprocess.Process, ours: socket.socket) -> Child:
        """Take over a process that was just started, with our end of its wire; as `start` from there on."""
        child = cls(spec, process)
        try:
            hello = {"start": dict(spec.start), "limits": spec.limits.as_args()}
            child._link, child.facts = await Link.open(
                ours, hello, name=spec.name, deadline_s=spec.ready_deadline_s, describe_end=child.describe_end
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
        return self._process.returncode is None and self._link is not None and self._link.is_open

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
            reason = f"killed by {signal.Signals(-code).name}"
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
            await asyncio.shield(self._reap())

    def kill(self) -> None:
        """SIGKILL now, without waiting; whoever waits on it hears LinkLost."""
        self._signal(signal.SIGKILL)

    async def _reap(self) -> None:
        await self._process.wait()
        if self._link is not None:
            await self._link.close()
        # The group may still hold the pipe open (a grandchild): do not wait for its end for ever.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stderr_reading, timeout=0.5)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        while chunk := await stream.read(1024):
            self._stderr_tail.append(chunk)
            log.debug("child stderr", child=self.spec.name, pid=self.pid, text=chunk.decode(errors="replace").rstrip())


#: Starts a child of a spec: Child.start, or something faster that ends in Child.attach (a fork server).
Starter = Callable[[ChildSpec], Awaitable[Child]]


class KeptChild:
    """Keeps one child for callers who do not care when it starts or restarts.

    Started on first use; after a crash the next call starts it again, but not before its back-off is over
    (RetryLater says when). A child that stayed up for `healthy_after_s` has its crashes forgiven.
    """

    def __init__(self, spec: ChildSpec, *, healthy_after_s: float = 60.0, start: Starter = Child.start) -> None:
        self.spec = spec
        self._start_child = start
        self._healthy_after_s = healthy_after_s
        self._child: Child | None = None
        self._starting = asyncio.Lock()
        self._crashes = 0
        self._started_at = 0.0
        self._may_start_at = 0.0
        self._restarts = 0
        self._is_closed = False

    @property
    def child(self) -> Child | None:
        """The running child, or None."""
        return self._child if self._child is not None and self._child.is_alive else None

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._restarts

    async def ready(self) -> Child:
        """The running child, started if need be. Raises RetryLater during back-off, or what the start raises."""
        if (child := self.child) is not None:
            return child
        async with self._starting:
            if (child := self.child) is not None:
                return child
            return await self._start()

    async def call(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> Reply:
        """As Link.call on a running child. On DeadlineExpired the child is killed: it hangs."""
        child = await self.ready()
        try:
            return await child.link.call(op, args, body, deadline_s=deadline_s, lane=lane)
        except DeadlineExpired:
            child.kill()
            raise

    async def stream(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        deadline_s: float,
        lane: int = wire.LANE_BULK,
    ) -> AsyncIterator[Reply]:
        """As Link.stream on a running child. On DeadlineExpired the child is killed: it hangs."""
        child = await self.ready()
        try:
            async with contextlib.aclosing(
                child.link.stream(op, args, body, deadline_s=deadline_s, lane=lane)
            ) as replies:
                async for reply in replies:
                    yield reply
        except DeadlineExpired:
            child.kill()
            raise

    async def stop(self) -> None:
        """End the child for good; later calls raise RetryLater."""
        self._is_closed = True
        await self.release()

    async def release(self) -> None:
        """End the child to give its memory back; the next call starts it again without back-off."""
        async with self._starting:
            if self._child is not None:
                child, self._child = self._child, None
                await child.stop()

    async def _start(self) -> Child:
        now = asyncio.get_running_loop().time()
        if self._is_closed:
            message = f"{self.spec.name} is stopped"
            raise errors.RetryLater(message)
        if self._child is not None:  # it died since the last call
            ended, self._child = self._child, None
            await ended.stop(grace_s=0)
            self._note_crash(now, ended.describe_end())
        if now < self._may_start_at:
            message = f"{self.spec.name} restarts in {self._may_start_at - now:.1f} s after {self._crashes} crashes"
            raise errors.RetryLater(message, after_s=self._may_start_at - now)
        try:
            self._child = await self._start_child(self.spec)
        except (LinkLost, DeadlineExpired) as error:
            self._note_crash(now, str(error))
            raise
        self._started_at = asyncio.get_running_loop().time()
        return self._child

    def _note_crash(self, now: float, reason: str) -> None:
        self._crashes = 1 if now - self._started_at > self._healthy_after_s else self._crashes + 1
        self._restarts += 1
        # The first restart is at once: one bad file must not cost its neighbours a wait.
        wait_s = 0.0 if self._crashes == 1 else backoff.delay_s(self._crashes - 1, base_s=0.2, cap_s=30.0)
        self._may_start_at = now + wait_s
        log.warning(
            "child ended", child=self.spec.name, crashes=self._crashes, restart_in_s=round(wait_s, 2), reason=reason
        )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, from /proc; 0 where that is not to be had."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


#: Everything else of our environment stays here: a child needs a place for temporary files, a language and a home.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "QDRANT_API_KEY",
)


def _inherited_env() -> dict[str, str]:
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
