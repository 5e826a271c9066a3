"""What no watch sees: folders beyond the limit, folders that cannot be read for a while. Found by random sequences
(`python -m bench.watch_fuzz --only errors`), told here in a few steps each."""

import errno
import os
import signal
import sys

import pytest
from watch_world import ONE, differences, until, watching

from msearchd.watch import root_keeper, watcher
from msearchd.watch.disk import Walk
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources import sweep

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    for name in ("a", "b"):
        (folder / name / "in").mkdir(parents=True)
        (folder / name / "in" / f"of {name}.txt").write_text("x")
    return folder


def refuse_watches_for(monkeypatch, refused):
    """Let watches fail with ENOSPC wherever *refused* (a function of the path) says so."""
    real = abi.add_watch

    def limited(fd, path, mask):
        if path.startswith(b"/proc") and refused(os.readlink(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, path, mask)

    monkeypatch.setattr(abi, "add_watch", limited)


async def test_over_the_watch_limit_sync_tells_of_folders_without_a_watch_too(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_EVERY_S", 3600.0)  # the clock does not come to help
    refuse_watches_for(monkeypatch, lambda path: path.endswith(b"/in"))
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert watcher.snapshot().dirs_unwatched == 2
        (root / "a" / "in" / "new.txt").write_text("x")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []


async def test_over_the_watch_limit_a_folder_replaced_by_another_is_compared_with_all_below(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "_EVERY_S", 0.1)
    refuse_watches_for(monkeypatch, lambda path: not path.endswith(b"/root"))
    for name in ("a", "b"):
        (root / "top" / name / "x" / "y").mkdir(parents=True)
        (root / "top" / name / "x" / "y" / f"{name}.txt").write_text(name)
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        (root / "top" / "a").rename(tmp_path / "gone")
        (root / "top" / "b").rename(root / "top" / "a")
        await until(lambda: differences(memory, root) == [])


@pytest.mark.parametrize("kind", ["look", "listing"])
async def test_a_tree_replaced_while_it_could_not_be_read_is_compared_with_all_below(root, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(root_keeper, "_RETRY_UNREADABLE_S", 0.2)
    monkeypatch.setattr(watcher, "_TEND_EVERY_S", 0.1)
    (root / "top" / "a" / "x").mkdir(parents=True)
    (root / "top" / "a" / "x" / "old.txt").write_text("x")
    (root / "top" / "b" / "x").mkdir(parents=True)
    (root / "top" / "b" / "x" / "new.txt").write_text("x")
    real, is_on = Walk._open, True
    refused = b"top" if kind == "look" else b"top/a"

    def refuses(walk, path):
        if is_on and path.startswith(refused):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(walk, path)

    async with watching(root, tmp_path / "state", backend="inotify") as (running, memory):
        await running.sync(deadline_s=20)
        monkeypatch.setattr(Walk, "_open", refuses)
        (root / "top" / "a").rename(tmp_path / "gone")
        (root / "top" / "b").rename(root / "top" / "a")
        await running.sync(deadline_s=20)
        assert running.snapshot().health == "degraded"
        is_on = False
        await until(lambda: differences(memory, root) == [])
        await until(lambda: running.snapshot().health == "ok")


async def test_a_folder_that_could_not_be_read_and_went_is_not_told_of_for_ever(root, tmp_path, monkeypatch):
    monkeypatch.setattr(root_keeper, "_RETRY_UNREADABLE_S", 0.2)
    monkeypatch.setattr(watcher, "_TEND_EVERY_S", 0.1)
    real = Walk._open

    def refuses(walk, path):
        if path == b"a/in":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(walk, path)

    monkeypatch.setattr(Walk, "_open", refuses)
    async with watching(root, tmp_path / "state", backend="inotify") as (running, memory):
        await running.sync(deadline_s=20)
        assert running.snapshot().health == "degraded"
        (root / "a").rename(root / "c")
        await until(lambda: running.snapshot().health == "ok")
        await running.sync(deadline_s=20)
        assert differences(memory, root) == []


async def test_a_folder_that_a_scan_finds_to_be_a_file_is_watched_no_longer(root, tmp_path):
    """Its place was looked at again later for that, unless the tree above it was to be walked anyway (fuzz, reader killed)."""
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        source = watcher._sources._local
        drain = source._drain
        os.kill(drain.pid, signal.SIGSTOP)
        (root / "a").rename(tmp_path / "elsewhere")
        (root / "a").write_text("a file now")
        os.kill(drain.pid, signal.SIGKILL)
        await until(lambda: source._drain is not None and source._drain is not drain)
        source._lost("once more")  # the root waits as a whole
        await watcher.sync(deadline_s=20)
        source._lost("and again")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        watched = {path for path, wd in source._tree.paths_of(ONE) if wd is not None}
        assert watched == {b"", b"b", b"b/in"}
