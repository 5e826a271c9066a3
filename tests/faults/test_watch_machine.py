"""Proof (a): whatever happens to a real folder under a real watcher, after quiet the index equals the tree.

Create, write, append, truncate, rename, replace, moves of trees, delete, chmod, a disk inside that is unmounted and mounted
(when root), a reader stopped or killed, and the watcher stopped and started over what it knew; in any order.
"""

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from watch_world import FAST, ONE, FileOps, MemoryTree, may_fanotify, on_disk

from msearchd.domain.asset import Root
from msearchd.settings import WatchSettings
from msearchd.watch.watcher import Watcher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify, mounts")
OPS = [
    "write", "append", "mkdirs", "rename_file", "rename_dir", "unlink", "rmtree", "move_out", "move_in", "atomic_save",
    "file_to_dir", "chmod", "utime", "touch_dir", "symlink", "copytree", "write_outside", "vim_save",
]  # fmt: skip
DISK = "disk"
LIBC = ctypes.CDLL(None, use_errno=True)


class Loop:
    """An event loop in a thread, so that the watcher runs while the disk changes."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine, timeout=60):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class FolderAndIndex(RuleBasedStateMachine):
    backend = "inotify"

    def __init__(self):
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="watch-machine-"))
        self.root, self.state, self.device = (self.base / name for name in ("root", "state", "device"))
        for folder in (self.root, self.state, self.device):
            folder.mkdir()
        (self.root / "never empty").touch()
        (self.root / DISK).mkdir()
        self.can_mount = os.geteuid() == 0 and not LIBC.mount(
            b"tmpfs", os.fsencode(self.device), b"tmpfs", 0, b"size=8m"
        )
        self.held = None  # what is known of the disk while it is away
        self.is_plugged = False
        self.ops = FileOps(self.root, self.base / "outside", 0)
        self.memory, self.loop, self.running = MemoryTree(), Loop(), None
        self.start()

    def teardown(self):
        try:
            self.quiet()
        finally:
            self.stop()
            self.loop.close()
            LIBC.umount2(os.fsencode(self.root / DISK), 2)
            LIBC.umount2(os.fsencode(self.device), 2)
            shutil.rmtree(self.base, ignore_errors=True)

    # -- the daemon

    def start(self):
        async def begin():
            wanted = WatchSettings(
                **FAST, backend=self.backend, watch_modify=True, vanish_brake_percent=100, include_hidden=True
            )
            watcher = Watcher(wanted, self.memory, self.memory, state_dir=self.state)
            task = asyncio.create_task(watcher.run())
            await watcher.add_root(Root(ONE, os.fsencode(self.root)))
            return watcher, task

        self.watcher, self.running = self.loop.run(begin())

    def stop(self):
        async def end():
            self.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running

        self.loop.run(end())

    # -- what happens

    @rule(op=st.sampled_from(OPS), seed=st.integers(0, 10**6))
    def operate(self, op, seed):
        self.ops.rng = random.Random(seed)
        self.ops.count += 1
        with contextlib.suppress(OSError, shutil.Error):
            getattr(self.ops, op)()

    @rule(seed=st.integers(0, 10**6), size=st.integers(0, 30))
    def truncate_by_path(self, seed, size):
        self.ops.rng = random.Random(seed)
        with contextlib.suppress(OSError):
            os.truncate(self.ops.a_file(), size)

    @rule(seed=st.integers(0, 10**6), ops=st.lists(st.sampled_from(OPS), min_size=5, max_size=30))
    def burst(self, seed, ops):
        for n, op in enumerate(ops):
            self.ops.rng = random.Random(seed + n)
            self.ops.count += 1
            with contextlib.suppress(OSError, shutil.Error):
                getattr(self.ops, op)()

    @rule(steps=st.integers(0, 3))
    def restart(self, steps):
        self.stop()
        for n in range(steps):
            self.ops.rng = random.Random(n)
            self.ops.step()
        self.start()

    @precondition(lambda self: self.backend == "inotify")
    @rule(is_killed=st.booleans(), seed=st.integers(0, 1000))
    def torment_the_reader(self, is_killed, seed):
        drain = self.watcher._sources._local and self.watcher._sources._local._drain
        if drain is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(drain.pid, signal.SIGSTOP)
            self.ops.rng = random.Random(seed)
            self.ops.step()
            os.kill(drain.pid, signal.SIGKILL if is_killed else signal.SIGCONT)

    @precondition(lambda self: self.can_mount and not self.is_plugged)
    @rule()
    def plug(self):
        point = self.root / DISK
        if point.is_symlink() or point.is_file():
            point.unlink()
        point.mkdir(exist_ok=True)
        assert LIBC.mount(os.fsencode(self.device), os.fsencode(point), None, 0x1000, None) == 0
        self.is_plugged, self.held = True, None

    @precondition(lambda self: self.is_plugged)
    @rule()
    def unplug(self):
        self.quiet()  # what was changed a moment before is not on the disk that is gone
        held = {path: f for path, f in self.memory.all_files().items() if path.startswith(DISK.encode() + b"/")}
        assert LIBC.umount2(os.fsencode(self.root / DISK), 0) == 0, "nothing of ours keeps a disk busy"
        self.is_plugged, self.held = False, held

    # -- what must hold

    @rule()
    def quiet(self):
        self.loop.run(self.watcher.sync(deadline_s=50))
        disk = on_disk(self.root)
        if self.held is not None:
            disk = {path: f for path, f in disk.items() if not path.startswith(DISK.encode() + b"/")} | self.held
        assert self.memory.all_files() == disk

    @invariant()
    def it_runs(self):
        if self.running is not None and self.running.done():
            self.running.result()


class UnderFanotify(FolderAndIndex):
    backend = "fanotify"


SHORT = settings(max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))


def run(machine, wanted):
    machine.TestCase.settings = wanted
    machine.TestCase("runTest").runTest()


def test_whatever_happens_the_index_equals_the_tree():
    run(FolderAndIndex, SHORT)


@pytest.mark.skipif(not may_fanotify(), reason="needs the privileges of fanotify")
def test_whatever_happens_under_fanotify_the_index_equals_the_tree():
    run(UnderFanotify, settings(SHORT, max_examples=3))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("machine", [FolderAndIndex, *([UnderFanotify] if may_fanotify() else [])])
def test_whatever_happens_the_index_equals_the_tree_in_long_runs(machine):
    run(machine, LONG)
