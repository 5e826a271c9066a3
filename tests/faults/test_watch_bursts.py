"""Bursts: as programs make them, with the kernel's queue as it is and nearly without one; memory that does not grow."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from watch_world import ONE, MemoryTree, differences, on_disk, watching

from msearchd.watch.sources import inotify_abi as abi

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify")
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")


def source_of(watcher):
    return watcher._sources._local


# -- memory ------------------------------------------------------------------------------------------------------------


@linux
async def test_the_events_of_a_great_copy_do_not_grow_the_daemon_even_while_its_sink_waits(tmp_path):
    root, memory, free = tmp_path / "root", MemoryTree(), asyncio.Event()
    for n in range(50):
        (root / f"d{n}").mkdir(parents=True)
    free.set()
    real = memory.apply

    async def apply(changes):
        await free.wait()
        await real(changes)

    memory.apply = apply
    async with watching(root, tmp_path / "state", memory=memory, backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        source = source_of(watcher)
        wds = [wd for path, wd in source._tree.paths_of(ONE) if path]
        free.clear()  # its disk is full, say
        (root / "d7" / "real.txt").write_text("x")
        most = 0
        for n in range(300):
            buffer = b"".join(
                abi.HEADER.pack(wds[m % 50], abi.CREATE if m & 1 else abi.CLOSE_WRITE, 0, 16)
                + (b"f%d" % (n * 1000 + m)).ljust(16, b"\0")
                for m in range(1000)
            )
            source._on_events(buffer)
            await asyncio.sleep(0)
            most = max(most, len(source._hints) + len(watcher._settler))
        assert most < 45_000, "of 300,000 events"
        free.set()
        await watcher.sync(deadline_s=30)
        assert differences(memory, root) == []


@linux
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_a_real_copy_of_many_files_holds_no_more_than_its_bounds(tmp_path):
    root, most = tmp_path / "root", [0]
    root.mkdir()
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)

        async def measure():
            while True:
                await asyncio.sleep(0.01)
                waiting = watcher._scans.of(ONE)
                most[0] = max(
                    most[0],
                    len(source_of(watcher)._hints) + len(watcher._settler) + sum(len(j.folders) for j in waiting),
                )

        task = asyncio.create_task(measure())
        script = "import os,sys\nfor n in range(2000):\n os.makedirs(f'{n%40}/{n}')\n for m in range(100): open(f'{n%40}/{n}/{m}','w').close()"
        maker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root)
        assert await maker.wait() == 0
        await watcher.sync(deadline_s=300)
        task.cancel()
        assert len(memory.all_files()) == 200_000
        assert most[0] < 50_000


# -- as programs make them ---------------------------------------------------------------------------------------------


def run(*argv, cwd):
    subprocess.run(argv, cwd=cwd, check=True, capture_output=True)


def git_clone(world):
    origin = world.outside / "origin"
    run("git", "init", "-q", str(origin), cwd=world.outside)
    for n in range(world.size * 20):
        (origin / f"m{n % 7}").mkdir(exist_ok=True)
        (origin / f"m{n % 7}" / f"{n}.py").write_text(f"print({n})\n" * 5)
    run("git", "add", ".", cwd=origin)
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", cwd=origin)
    run("git", "clone", "-q", str(origin), str(world.root / "clone"), cwd=world.outside)


def copy_tree(world):
    shutil.copytree(world.tree(), world.root / "copy")
    run("cp", "-a", str(world.tree()), str(world.root / "copy-a"), cwd=world.root)


def tar_extract(world):
    with tarfile.open(world.outside / "t.tar", "w") as tar:
        tar.add(world.tree(), "unpacked")
    run("tar", "xf", str(world.outside / "t.tar"), cwd=world.root)


def rsync_like(world):
    """Each file under a hidden temporary name, times set, then renamed: twice, as a second run does."""
    for _ in range(2):
        for source in sorted(world.tree().rglob("*.txt")):
            target = world.root / "mirror" / source.relative_to(world.tree())
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".{target.name}.Ab3dEf")
            shutil.copyfile(source, fresh)
            os.utime(fresh, (10**9, 10**9))
            fresh.rename(target)


def atomic_editors(world):
    for n in range(world.size * 10):
        path = world.root / f"note{n % 9}.md"
        fresh = path.with_suffix(".tmp")
        fresh.write_text(f"{n}")
        fresh.rename(path)
        backup = path.with_name(path.name + "~")  # and vim's way
        path.rename(backup)
        path.write_text(f"{n} again")
        backup.unlink()


async def slow_downloads(world):
    async def one(n):
        part = world.root / f"film{n}.mkv.part"
        with part.open("wb") as file:
            for _ in range(5):
                file.write(b"x" * 10_000)
                file.flush()
                await asyncio.sleep(0.01)
        part.rename(part.with_suffix(""))

    await asyncio.gather(*(one(n) for n in range(10)))


async def log_appends(world):
    logs = [(world.root / f"{n}.log").open("ab") for n in range(5)]
    for n in range(world.size * 20):
        logs[n % 5].write(b"line\n")
        logs[n % 5].flush()
        if n % 20 == 0:
            await asyncio.sleep(0)
    for log in logs:
        log.close()


def moves_of_trees(world):
    shutil.copytree(world.tree(), world.root / "m0")
    for n in range(world.size):
        (world.root / f"m{n}").rename(world.root / f"m{n + 1}")
        (world.root / f"m{n + 1}" / "s0" / "late.txt").write_text(f"{n}")


def clean_up(world):
    for folder in sorted(world.root.iterdir())[: world.size % 3 + 1]:
        shutil.rmtree(folder) if folder.is_dir() else folder.unlink()


PATTERNS = [
    copy_tree, tar_extract, rsync_like, atomic_editors, slow_downloads, log_appends, moves_of_trees, clean_up,
    *([git_clone] if shutil.which("git") else []),
]  # fmt: skip


class World:
    def __init__(self, folder, size):
        self.root, self.outside, self.size = folder / "root", folder / "outside", size
        self.root.mkdir()
        self.outside.mkdir()

    def tree(self):
        top = self.outside / "tree"
        if not top.exists():
            for n in range(self.size * 20):
                path = top / f"s{n % 5}" / f"t{n % 3}" / f"{n}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{n}" * 10)
        return top


@contextlib.contextmanager
def queue_of(events):
    """The length holds for descriptors made from now on; whole machine, so it is put back at once."""
    before = QUEUE.read_text()
    try:
        QUEUE.write_text(str(events))
    except OSError:
        pytest.skip("the kernel's queue cannot be made small here")
    try:
        yield
    finally:
        QUEUE.write_text(before)


@contextlib.asynccontextmanager
async def hesitating(source):
    """The reader gets the processor only now and then, as on a machine with more to do."""

    async def stop_and_go():
        while True:
            pid = source._drain.pid
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(0.01)
            finally:
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.003)

    task = asyncio.create_task(stop_and_go())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def soak(tmp_path, size, *, queue, rounds=1):
    async with contextlib.AsyncExitStack() as stack:
        world = World(tmp_path, size)
        with queue_of(queue) if queue else contextlib.nullcontext():
            watcher, memory = await stack.enter_async_context(
                watching(world.root, tmp_path / "state", backend="inotify", include_hidden=True)
            )
            await watcher.sync(deadline_s=60)
        for turn in range(rounds):
            for pattern in PATTERNS:
                if turn:
                    _empty(world.root)
                    shutil.rmtree(world.outside / "origin", ignore_errors=True)
                async with hesitating(source_of(watcher)) if queue else contextlib.nullcontext():
                    if asyncio.iscoroutinefunction(pattern):
                        await pattern(world)
                    else:  # while the loop runs, as another program would
                        await asyncio.to_thread(pattern, world)
                await watcher.sync(deadline_s=120)
                assert lost(memory, world.root) == [], pattern.__name__
        return watcher.snapshot()


def _empty(root):
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def lost(memory, root):
    """Differences, without what the built-in list leaves out (.git)."""
    return [line for line in differences(memory, root) if "/.git/" not in line]


@linux
async def test_bursts_of_ordinary_programs_lose_nothing(tmp_path):
    status = await soak(tmp_path, 5, queue=0)
    assert status.health == "ok"


@linux
@pytest.mark.root
async def test_bursts_lose_nothing_with_a_kernel_queue_of_sixteen_events(tmp_path):
    status = await soak(tmp_path, 5, queue=16)
    assert status.overflows > 0, "else it proves nothing"
    assert "overflowed" in status.last_doubt


@linux
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(900)
@pytest.mark.parametrize("queue", [0, 16])
async def test_bursts_lose_nothing_for_minutes(tmp_path, queue):
    await soak(tmp_path, 60, queue=queue, rounds=4)


def test_the_worlds_patterns_really_make_files(tmp_path):
    world = World(tmp_path, 2)
    copy_tree(world)
    assert len(on_disk(world.root)) == 80
