"""Fork servers: torch imported once, workers in a tenth of a second.

A server is a child that imports an engine's modules, never runs an operation, and forks workers on request; the
worker's socket and stderr travel to it as descriptors (SCM_RIGHTS). It dies with the daemon and ends after a while
without workers.
Where forking is not safe (not Linux, a library started threads) or the server fails, workers are started by exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import structlog

from msearchd import errors
from msearchd.aio.child import Child, ChildSpec, KeptChild, Limits, LinkLost, Reply, Starter
from msearchd.inference.spec import EngineChoice, ModelSpec
from msearchd.inference.worker.engines import PRELOADS

log = structlog.get_logger(__name__)

_SERVER_MODULE = "msearchd.inference.worker.fork_main"
#: The imports stay in memory this long after the last worker has ended.
_IDLE_S = 60.0
_FOREVER_S = 10 * 365 * 86400.0
_FORK_DEADLINE_S = 5.0


class ForkServers:
    """The servers of a pool: one per interpreter and environment, each started on first need."""

    def __init__(self, *, limits: Limits, is_used: bool = True) -> None:
        self._limits = limits
        self._is_used = is_used and sys.platform == "linux"
        self._servers: dict[tuple[str, str, str], ForkServer] = {}

    def starter_for(self, choice: EngineChoice, spec: ModelSpec) -> Starter:
        """How workers of this engine are started: by a server's fork, else by exec."""
        if not self._is_used or choice.engine not in PRELOADS:
            return Child.start
        key = (choice.engine, choice.python, spec.env.get("HF_HUB_OFFLINE", ""))
        if key not in self._servers:
            family = spec.card.model_type if spec.card else ""
            self._servers[key] = ForkServer(choice, env=spec.env, family=family, limits=self._limits)
        return self._servers[key].start

    async def close(self) -> None:
        """End all servers; their workers end with them."""
        await asyncio.gather(*(server.close() for server in self._servers.values()))


class ForkServer:
    """One server. `start` is a Starter for KeptChild."""

    def __init__(self, choice: EngineChoice, *, env: Mapping[str, str], family: str, limits: Limits) -> None:
        preload = [
            *PRELOADS[choice.engine],
            f"msearchd.inference.worker.engines.{choice.engine}",
            "msearchd.inference.worker.main",
        ]
        if family.replace("_", "").isalnum():
            preload.append(f"transformers.models.{family}.modeling_{family}")
        spec = ChildSpec(
            name=f"forkserver:{choice.engine}",
            module=_SERVER_MODULE,
            python=choice.python,
            env=env,
            limits=limits,
            start={"preload": preload},
            ready_deadline_s=300.0,
            stop_grace_s=0.5,
        )
        self._kept = KeptChild(spec, start=self._start_server)
        self._descriptors: socket.socket | None = None
        self._one_at_a_time = asyncio.Lock()
        self._forks: set[asyncio.Task[None]] = set()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self, spec: ChildSpec) -> Child:
        """Fork a worker of *spec*; by exec where the server cannot. Raises what Child.start raises."""
        try:
            process, ours = await self._fork()
        except errors.MsearchError as error:
            log.warning("no fork server, starting by exec", worker=spec.name, reason=str(error))
            return await Child.start(spec)
        # The server runs at our niceness already, and niceness adds up.
        return await Child.attach(replace(spec, limits=replace(spec.limits, nice=0)), process, ours)

    async def close(self) -> None:
        """End the server."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        await asyncio.gather(*([self._ending] if self._ending else []), return_exceptions=True)
        await self._kept.stop()
        if self._descriptors is not None:
            self._descriptors.close()
        await asyncio.gather(*self._forks, return_exceptions=True)

    async def _start_server(self, spec: ChildSpec) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            spec = replace(spec, start={**spec.start, "descriptors": theirs.fileno()}, pass_fds=(theirs.fileno(),))
            child = await Child.start(spec)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        if self._descriptors is not None:
            self._descriptors.close()
        self._descriptors = ours
        return child

    async def _fork(self) -> tuple[Any, socket.socket]:
        """A ForkedProcess and our end of its wire."""
        async with self._one_at_a_time:
            server = await self._kept.ready()
            if not server.facts.get("can_fork"):
                message = f"a preloaded library started threads: {server.facts.get('threads')}"
                raise errors.RetryLater(message)
            if self._descriptors is None:
                message = "a fork server without descriptors"
                raise errors.Bug(message)
            ours, theirs = socket.socketpair()
            read_end, write_end = os.pipe()
            try:
                socket.send_fds(self._descriptors, [b"w"], [theirs.fileno(), write_end])
                process = ForkedProcess(server, await _reader(read_end))
                task = asyncio.create_task(process.follow(), name="forked-worker")
                self._forks.add(task)
                task.add_done_callback(self._worker_ended)
                await process.forked(deadline_s=_FORK_DEADLINE_S)
            except BaseException as error:
                ours.close()
                if isinstance(error, OSError):
                    message = f"the fork server takes no descriptors: {error}"
                    raise errors.RetryLater(message) from error
                raise
            finally:
                theirs.close()
                os.close(write_end)
            return process, ours

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._forks.discard(task)
        loop = asyncio.get_running_loop()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = loop.call_later(_IDLE_S, self._end_soon)

    def _end_soon(self) -> None:
        self._idle_timer = None
        self._ending = asyncio.create_task(self._end_if_idle(), name="idle-forkserver")

    async def _end_if_idle(self) -> None:
        async with self._one_at_a_time:  # no fork begins meanwhile
            if not self._forks and self._kept.child is not None:
                await self._kept.release()


class ForkedProcess:
    """Quacks like asyncio.subprocess.Process for a process whose parent is a fork server, which tells of its end."""

    def __init__(self, server: Child, stderr: asyncio.StreamReader) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stderr = stderr
        self._server = server
        self._forked = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: errors.MsearchError | None = None

    async def follow(self) -> None:
        """Ask for the fork and listen until the process has ended. One task, owned by the fork server."""
        frames: AsyncGenerator[Reply, None] = self._server.link.stream("fork", deadline_s=_FOREVER_S)
        try:
            async with contextlib.aclosing(frames):
                async for reply in frames:
                    if "pid" in reply.args:
                        self.pid = int(reply.args["pid"])
                        self._forked.set()
                    elif "status" in reply.args:
                        self.returncode = int(reply.args["status"])
        except LinkLost:
            # The server is gone, and the kernel kills its children with it.
            self.returncode = -9
        except errors.MsearchError as error:
            self._error = error
        finally:
            if self.returncode is None:
                self.returncode = -9
            self._forked.set()
            self._ended.set()

    async def forked(self, *, deadline_s: float) -> None:
        """Return once it has a process id. Raises RetryLater where there is none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._forked.wait()
        if not self.pid:
            raise self._error or errors.RetryLater("the fork server did not fork")

    async def wait(self) -> int:
        """Exit status (negative: the signal that ended it)."""
        await self._ended.wait()
        return self.returncode if self.returncode is not None else -9


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    return reader
