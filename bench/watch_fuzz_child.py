"""The watcher of a fuzz sequence, in a process of its own: started, asked, tormented, killed.

    operations (parent) ──disk──▶ watcher (child) ──changes──▶ what is known (parent)

In: commands on a pipe. Out: every batch of changes that was applied, in order, and answers. What the parent has not read
when the child is killed was never committed; the next child is forked with what the parent knows, as a daemon
that starts over its database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from bench.watch_fuzz_faults import Faults, with_queue_of
from msearchd import errors
from msearchd.domain.asset import Root
from msearchd.settings import WatchSettings
from msearchd.watch.sources import inotify, inotify_abi
from msearchd.watch.watcher import Watcher

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from watch_world import FAST, ONE, MemoryTree, differences

_FORK = multiprocessing.get_context("fork")
_SYNC_S = 60.0
#: How long folders that could not be read or watched may take after the errors ended.
_HEAL_S = 20.0


@dataclass(frozen=True, slots=True)
class Variant:
    """How a sequence is run. `pauses_s`: chosen from every 8 operations; () is full speed."""

    purpose: str
    backend: str = "inotify"
    pauses_s: tuple[float, ...] = ()
    torments: tuple[str, ...] = ()
    queue: int = 0  # events that the kernel holds; 0: its own limit
    error_rate: float = 0.0  # of the calls that may fail
    needs: str = ""


VARIANTS = {
    "full": Variant("full speed"),
    "paced": Variant("pauses of 0 to 30 ms", pauses_s=(0, 0.0005, 0.002, 0.01, 0.03)),
    "queue": Variant("a kernel queue of 50 events", pauses_s=(0, 0, 0, 0.01), queue=50, needs="root"),
    "errors": Variant("watch limit, EACCES, EIO, busy database", pauses_s=(0, 0.002, 0.02), error_rate=0.03),
    "reader": Variant("reader stopped, killed", pauses_s=(0, 0, 0.01), torments=("stop", "kill reader")),
    "killed": Variant("kill -9 of the watcher, restart", pauses_s=(0, 0, 0.01), torments=("kill -9", "restart")),
    "fanotify": Variant("fanotify, paced", "fanotify", pauses_s=(0, 0.0005, 0.01), needs="CAP_SYS_ADMIN"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What a watcher said of its life."""

    overflows: int = 0
    reader_restarts: int = 0
    errors_made: int = 0

    def __add__(self, other: Told) -> Told:
        return Told(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class WatcherSilent(Exception):  # noqa: N818 - a finding
    """The child died by itself or did not answer."""


class WatcherProcess:
    """Parent side. `memory` is what was committed."""

    def __init__(self, variant: Variant, base: Path, memory: MemoryTree, seed: int) -> None:
        self._variant, self._base, self._seed = variant, base, seed
        self.memory = memory
        self.told = Told()
        self.kills = 0
        self._start()

    def check(self, root: Path) -> list[str]:
        """`sync`, then every difference between what it knows and the disk, and in its books. Empty: none."""
        lines: list[str] = self._ask("check")
        ours = differences(self.memory, root) if not lines else []  # what was sent is what the child knows
        return lines + [f"committed: {line}" for line in ours]

    def torment(self, how: str, chance: random.Random) -> None:
        """Do *how* to it; operations go on before and after."""
        if how == "stop":
            self._ask("stop reader")
        elif how == "kill reader":
            self._ask("kill reader")
        elif how == "restart":
            self._end("restart")
            self._start()
        else:
            time.sleep(chance.choice((0.0, 0.005, 0.03, 0.1)))
            self._kill()
            self._start()

    def stop(self) -> None:
        """End it."""
        self._end("stop") if self._process.is_alive() else self._kill()

    # -- the process

    def _start(self) -> None:
        self._pipe, theirs = _FORK.Pipe()
        self._process = _FORK.Process(
            target=_child_main, args=(theirs, self._pipe, self._variant, self._base, self.memory, self._seed)
        )
        self._process.start()
        theirs.close()
        self._answers: list[Any] = []
        self._has_answer = threading.Semaphore(0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, value = self._pipe.recv()
                if kind == "changes":
                    for change in value:
                        self.memory._apply_one(change)
                else:
                    self._answers.append(value)
                    self._has_answer.release()

    def _ask(self, what: str) -> Any:
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(what)
        deadline = time.monotonic() + _SYNC_S + _HEAL_S + 10
        while not self._has_answer.acquire(timeout=0.5):
            if not self._process.is_alive() and not self._has_answer.acquire(timeout=0.5):
                message = f"the watcher's process ended with {self._process.exitcode}"
                raise WatcherSilent(message)
            if time.monotonic() > deadline:
                message = f"no answer to {what!r}"
                raise WatcherSilent(message)
        return self._answers.pop()

    def _end(self, how: str) -> None:
        try:
            health = self._ask(how)
            self.told += health
        except WatcherSilent:
            self._kill()
            return
        self._reap()

    def _kill(self) -> None:
        self.kills += 1
        self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.join()
        self._reader.join()
        self._pipe.close()


# -- the child ---------------------------------------------------------------------------------------------------------


class _Sink:
    """Applies and sends; says "busy" now and then where errors are wanted."""

    def __init__(self, memory: MemoryTree, pipe: Connection, faults: Faults) -> None:
        self._memory, self._pipe, self._faults = memory, pipe, faults

    async def apply(self, changes: Sequence[Any]) -> None:
        if self._faults.strikes():
            message = "the database is busy"
            raise errors.RetryLater(message, after_s=0.1)
        await self._memory.apply(changes)
        self._memory.log.clear()
        self._pipe.send(("changes", list(changes)))


def _child_main(
    pipe: Connection, other: Connection, variant: Variant, base: Path, memory: MemoryTree, seed: int
) -> None:
    other.close()
    os.setpgid(0, 0)
    faults = Faults(variant.error_rate, random.Random(seed))
    faults.install()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if variant.queue:
        inotify.abi.init = with_queue_of(variant.queue, inotify_abi.init)
    asyncio.run(_child(pipe, variant, base, memory, faults))


async def _child(pipe: Connection, variant: Variant, base: Path, memory: MemoryTree, faults: Faults) -> None:
    wanted = WatchSettings(**FAST, backend=variant.backend, vanish_brake_percent=100)
    watcher = Watcher(wanted, memory, _Sink(memory, pipe, faults), state_dir=base / "state")
    task = asyncio.create_task(watcher.run())
    await watcher.add_root(Root(ONE, os.fsencode(base / "root")))
    commands: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(pipe.fileno(), lambda: commands.put_nowait(pipe.recv()))
    while True:
        command = asyncio.create_task(commands.get())
        await asyncio.wait({command, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        if command.result() in {"stop", "restart"}:
            health = watcher._sources.health()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            pipe.send(("answer", Told(health.overflows, health.restarts, sum(faults.counts.values()))))
            return
        pipe.send(("answer", await _obey(command.result(), watcher, memory, base, faults)))


async def _obey(command: str, watcher: Watcher, memory: MemoryTree, base: Path, faults: Faults) -> list[str]:
    local = watcher._sources._local
    if command == "check":
        return await _check(watcher, memory, base / "root", faults)
    drain = getattr(local, "_drain", None)
    if drain is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(drain.pid, signal.SIGSTOP)
            if command == "kill reader":
                os.kill(drain.pid, signal.SIGKILL)
            else:
                asyncio.get_running_loop().call_later(0.05, _go_on, drain.pid)
    return []


def _go_on(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


async def _check(watcher: Watcher, memory: MemoryTree, root: Path, faults: Faults) -> list[str]:
    """What differs after `sync`. Where errors were made, folders that could not be read have some time to be read again."""
    faults.is_on = False
    until = time.monotonic() + (_HEAL_S if faults.rate else 0)
    try:
        while True:
            try:
                await watcher.sync(deadline_s=_SYNC_S)
            except errors.RetryLater as trouble:
                return [f"no sync: {trouble}"]
            lines = differences(memory, root) + list(_books(watcher, root))
            if not lines:
                return lines
            if time.monotonic() > until:
                return [_state(watcher), *lines]
            await asyncio.sleep(0.2)
    finally:
        faults.is_on = True


def _state(watcher: Watcher) -> str:
    """How the watcher sees its one root."""
    status = watcher.snapshot()
    root = status.roots[0]
    return (
        f"the root is {root.state} ({root.reason}), scan {root.scan!r}, last whole scan {root.last_scan_ms},"
        f" {status.pending} pending, {root.unreadable_dirs} unreadable, last doubt: {status.last_doubt}"
    )


def _books(watcher: Watcher, root: Path) -> Iterator[str]:
    """P5: watches are exactly the directories that there are, in our books and in the kernel's."""
    source = watcher._sources._local
    if source is None or source.name != "inotify" or source.health().unwatched_dirs:
        return
    base = os.fsencode(root)
    watched = {path for path, wd in source._tree.paths_of(ONE) if wd is not None}  # type: ignore[attr-defined]
    dirs = {folder[len(base) + 1 :] for folder, _, _ in os.walk(base)}
    yield from (f"unwatched folder {path!r}" for path in dirs - watched)
    yield from (f"watch of no folder {path!r}" for path in watched - dirs)
    with Path(f"/proc/self/fdinfo/{source._fd}").open() as table:  # type: ignore[attr-defined]
        in_kernel = sum(1 for line in table if line.startswith("inotify"))
    if in_kernel != len(watched) + 1:
        yield f"{in_kernel} watches in the kernel for {len(watched)} folders and the cookies'"
