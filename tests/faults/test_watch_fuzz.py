"""Random operations on a real folder under a real watcher: after `sync` the memory equals the disk, always.

The seed is in the test's name. Paced runs matter: at full speed late scans hide what events missed.
"""

import asyncio
import os
import random
import signal
import sys

import pytest
from watch_world import ONE, FileOps, MemoryTree, differences, may_fanotify, watching

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify")
SHORT = range(4)
LONG = range(100, 140)
OTHERS = ["watchdog", "polling", *(["fanotify"] if may_fanotify() else [])]


def faults_of_the_books(watcher, ops):
    """P5: watches are exactly the directories that there are, in our books and in the kernel's."""
    source = watcher._sources._local
    if source is None or source.name != "inotify":
        return []
    base = os.fsencode(ops.root)
    watched = {path for path, wd in source._tree.paths_of(ONE) if wd is not None}
    dirs = {os.fsencode(path)[len(base) + 1 :] for path in ops.dirs()}
    with open(f"/proc/self/fdinfo/{source._fd}") as table:
        in_kernel = sum(1 for line in table if line.startswith("inotify"))
    out = [f"unwatched {path!r}" for path in dirs - watched] + [f"ghost {path!r}" for path in watched - dirs]
    return out if in_kernel == len(watched) + 1 else [*out, f"{in_kernel} watches for {len(watched)} folders"]


async def perform(ops, steps, pause):
    for n in range(steps):
        ops.step()
        if n % 15 == 0:
            await asyncio.sleep(ops.rng.choice(pause))


async def in_step(watcher, memory, ops):
    await watcher.sync(deadline_s=60)
    assert differences(memory, ops.root) == []
    assert faults_of_the_books(watcher, ops) == []


def begin(tmp_path, seed, steps):
    root = tmp_path / "root"
    root.mkdir()
    ops = FileOps(root, tmp_path / "outside", seed)
    ops.run(steps // 10)
    return ops


async def run_watched(tmp_path, backend, seed, *, steps, pause=(0, 0.001, 0.02)):
    ops = begin(tmp_path, seed, steps)
    async with watching(ops.root, tmp_path / "state", backend=backend) as (watcher, memory):
        for _ in range(4):
            await perform(ops, steps // 4, pause)
            await in_step(watcher, memory, ops)


async def run_restarted(tmp_path, backend, seed, *, steps):
    """The daemon stops and starts; operations go on meanwhile. What a person deletes meanwhile is believed."""
    ops, memory = begin(tmp_path, seed, steps), MemoryTree()
    for _ in range(4):
        async with watching(ops.root, tmp_path / "state", memory=memory, backend=backend, vanish_brake_percent=100) as (
            watcher,
            _,
        ):
            (ops.root / "never empty").touch()
            await in_step(watcher, memory, ops)
            await perform(ops, steps // 8, (0, 0.01))
        ops.run(steps // 8)
    async with watching(ops.root, tmp_path / "state", memory=memory, backend=backend, vanish_brake_percent=100) as (
        watcher,
        _,
    ):
        await in_step(watcher, memory, ops)


async def run_tormented(tmp_path, seed, *, steps):
    """The reader is stopped or killed again and again."""
    ops, chance = begin(tmp_path, seed, steps), random.Random(seed)
    async with watching(ops.root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await in_step(watcher, memory, ops)
        for _ in range(6):
            drain = watcher._sources._local._drain
            os.kill(drain.pid, signal.SIGSTOP)
            await perform(ops, steps // 12, (0, 0.005))
            os.kill(drain.pid, chance.choice([signal.SIGCONT, signal.SIGKILL]))
            await perform(ops, steps // 12, (0, 0.005))
            await asyncio.sleep(0.05)
            await in_step(watcher, memory, ops)


@linux
@pytest.mark.parametrize("seed", SHORT)
async def test_inotify_never_loses_or_invents_a_file(tmp_path, seed):
    await run_watched(tmp_path, "inotify", seed, steps=400)


@linux
@pytest.mark.parametrize("seed", SHORT[:2])
async def test_inotify_by_itself_comes_to_rest_equal_to_the_disk(tmp_path, seed):
    """No sync: only what events bring, within the rest times."""
    ops = begin(tmp_path, seed, 200)
    async with watching(ops.root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        await perform(ops, 300, (0, 0.002, 0.02))
        async with asyncio.timeout(30):
            while differences(memory, ops.root):
                await asyncio.sleep(0.05)


@linux
@pytest.mark.parametrize("seed", SHORT[:2])
async def test_a_reader_stopped_and_killed_never_costs_a_file(tmp_path, seed):
    await run_tormented(tmp_path, seed, steps=300)


@pytest.mark.parametrize("backend", OTHERS)
async def test_the_other_sources_never_lose_or_invent_a_file(tmp_path, backend):
    await run_watched(tmp_path, backend, 1, steps=300)


@pytest.mark.parametrize("seed", SHORT[:2])
async def test_a_daemon_that_stops_and_starts_never_loses_a_file(tmp_path, seed):
    await run_restarted(tmp_path, "auto", seed, steps=300)


@linux
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", LONG)
async def test_inotify_never_loses_a_file_in_long_runs(tmp_path, seed):
    await run_watched(tmp_path, "inotify", seed, steps=1500, pause=(0, 0.0005, 0.002, 0.03))


@linux
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", LONG[:20])
async def test_a_tormented_reader_never_costs_a_file_in_long_runs(tmp_path, seed):
    await run_tormented(tmp_path, seed, steps=1500)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["auto", "watchdog", "polling"])
@pytest.mark.parametrize("seed", LONG[:8])
async def test_restarts_never_lose_a_file_in_long_runs(tmp_path, backend, seed):
    await run_restarted(tmp_path, backend, seed, steps=1200)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("seed", LONG[:8])
async def test_the_other_sources_never_lose_a_file_in_long_runs(tmp_path, backend, seed):
    await run_watched(tmp_path, backend, seed, steps=1200)
