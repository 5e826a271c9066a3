"""What happens to whole roots: gone, empty, unmounted, mounted twice, silent. Real disks where root allows."""

import asyncio
import ctypes
import os
import sys
import threading

import pytest
from watch_world import ONE, MemoryTree, differences, state_of, until, watching

from msearchd.domain.asset import Root, RootId, RootState, StatFingerprint
from msearchd.settings import WatchSettings
from msearchd.watch import watcher as watcher_module
from msearchd.watch.changes import FileGone, FileSeen, RootWent, TreeGone
from msearchd.watch.disk import RootContext, RootUnreadable
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import Rules
from msearchd.watch.lane import DiskLane

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify")


@pytest.fixture(autouse=True)
def quick_tending(monkeypatch):
    monkeypatch.setattr(watcher_module, "_TEND_EVERY_S", 0.1)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    for n in range(30):
        (folder / f"{n}.txt").write_text(f"{n}")
    return folder


def source_of(watcher):
    return watcher._sources._local


async def test_files_that_vanish_during_the_first_scan_of_a_new_folder_are_no_doubt_about_its_disk(root, tmp_path):
    """They become known after the folder was opened and before its first scan counts what is known."""
    memory = MemoryTree()
    count, counts = memory.count_files, []

    async def counted(root_id, path=b""):
        if counts == [0]:
            for file in root.iterdir():
                seen = StatFingerprint(1, 1, 1, file.stat().st_ino)
                await memory.apply([FileSeen(root_id, os.fsencode(file.name), seen, is_live=True)])
                file.unlink()
            (root / "stays.txt").write_text("x")
        counts.append(await count(root_id, path))
        return counts[-1]

    memory.count_files = counted
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert counts[:2] == [0, 30]
        assert state_of(watcher) is RootState.ONLINE
        assert differences(memory, root) == []


@pytest.mark.parametrize("backend", ["inotify", "watchdog", "polling"])
async def test_a_root_that_goes_is_offline_and_comes_back_by_itself(root, tmp_path, backend):
    async with watching(root, tmp_path / "state", backend=backend) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.log.clear()
        root.rename(tmp_path / "unplugged")
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert len(memory.all_files()) == 30
        assert not memory.of(FileGone)
        (tmp_path / "unplugged" / "added elsewhere.txt").write_text("x")
        (tmp_path / "unplugged" / "0.txt").unlink()
        (tmp_path / "unplugged").rename(root)
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert [c.state for c in memory.of(RootWent)] == [RootState.OFFLINE, RootState.ONLINE]
        (root / "live again.txt").write_text("x")
        if backend != "polling":
            await until(lambda: b"live again.txt" in memory.all_files())


async def test_an_empty_mount_point_in_its_place_deletes_nothing(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        root.rename(tmp_path / "unplugged")
        root.mkdir()
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        await asyncio.sleep(0.5)
        assert "mounted" in watcher.snapshot().roots[0].reason
        assert len(memory.all_files()) == 30
        root.rmdir()
        (tmp_path / "unplugged").rename(root)
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        assert differences(memory, root) == []


async def test_a_root_that_is_missing_at_the_start_is_offline_until_it_comes(tmp_path):
    root = tmp_path / "later"
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        await watcher.sync(deadline_s=5)  # an offline root holds nobody up
        root.mkdir()
        (root / "a.txt").write_text("x")
        await until(lambda: b"a.txt" in memory.all_files())
        assert state_of(watcher) is RootState.ONLINE


async def test_losing_most_files_at_once_while_down_is_doubted_until_a_person_says_so(root, tmp_path):
    memory = MemoryTree()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    for n in range(25):
        (root / f"{n}.txt").unlink()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert "25 of 30 files vanished" in watcher.snapshot().roots[0].reason
        assert len(memory.all_files()) == 30
        summary = await watcher.scan_now(ONE, accept_losses=True)
        assert (summary.vanished, summary.doubt) == (25, "")
        assert state_of(watcher) is RootState.ONLINE
        assert differences(memory, root) == []


async def test_a_root_emptied_while_down_is_doubted_even_if_it_was_small(tmp_path):
    root, memory = tmp_path / "r", MemoryTree()
    root.mkdir()
    (root / "only.txt").write_text("x")
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    (root / "only.txt").unlink()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert len(memory.all_files()) == 1
        (root / "only.txt").write_text("back")
        await watcher.scan_now(ONE)
        assert state_of(watcher) is RootState.ONLINE


@pytest.mark.parametrize("backend", ["inotify", "watchdog"])
async def test_deleting_everything_under_the_eyes_of_the_watcher_is_believed(root, tmp_path, backend):
    async with watching(root, tmp_path / "state", backend=backend) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        for path in root.iterdir():
            path.unlink()
        await watcher.sync(deadline_s=20)
        assert memory.all_files() == {}
        assert state_of(watcher) is RootState.ONLINE


@linux
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
async def test_a_disk_unmounted_and_mounted_again_costs_no_deletion(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    root = tmp_path / "disk"
    root.mkdir()
    target = os.fsencode(root)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=1m"):
        pytest.skip("mounting is not allowed here")
    try:
        for n in range(5):
            (root / f"{n}.txt").write_text("x")
        if libc.mount(target, os.fsencode(hidden), None, 0x1000, None):  # MS_BIND: keeps the file system alive
            pytest.skip("bind mounts are not allowed here")
        async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
            await watcher.sync(deadline_s=20)
            assert libc.umount2(target, 0) == 0  # nothing of ours keeps it busy
            await until(lambda: state_of(watcher) is RootState.OFFLINE)
            assert len(memory.all_files()) == 5
            (hidden / "5.txt").write_text("x")
            assert libc.mount(os.fsencode(hidden), target, None, 0x1000, None) == 0
            await until(lambda: state_of(watcher) is RootState.ONLINE)
            await watcher.sync(deadline_s=20)  # the new file is at rest only now
            assert differences(memory, root) == []
    finally:
        libc.umount2(target, 2)
        libc.umount2(os.fsencode(hidden), 2)


@linux
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
async def test_a_bind_mount_of_a_folder_into_the_root_is_followed_at_both_places(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import sweep

    monkeypatch.setattr(sweep, "_EVERY_S", 0.2)  # one inode, one watch: the other place is swept
    libc = ctypes.CDLL(None, use_errno=True)
    (root / "real").mkdir()
    (root / "alias").mkdir()
    (root / "real" / "f.txt").write_text("x")
    alias = os.fsencode(root / "alias")
    if libc.mount(os.fsencode(root / "real"), alias, None, 0x1000, None):
        pytest.skip("bind mounts are not allowed here")
    try:
        async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
            await watcher.sync(deadline_s=20)
            assert {b"real/f.txt", b"alias/f.txt"} <= memory.all_files().keys()
            await watcher.scan_now(ONE)
            assert not memory.of(TreeGone)
            (root / "real" / "g.txt").write_text("x")
            await until(lambda: b"real/g.txt" in memory.all_files())
            assert {b"real/f.txt", b"alias/f.txt"} <= memory.all_files().keys()
    finally:
        libc.umount2(alias, 2)


async def test_a_root_removed_in_the_middle_of_its_scan_is_never_spoken_of_again(root, tmp_path):
    for n in range(100):
        (root / f"d{n}").mkdir()
        (root / f"d{n}" / "f.txt").touch()
    async with watching(root, tmp_path / "state") as (watcher, memory):
        real = memory.apply

        async def slow(changes):
            await asyncio.sleep(0.01)
            await real(changes)

        memory.apply = slow
        await until(lambda: len(memory.log) > 0)
        await watcher.remove_root(ONE)
        said = len(memory.log)
        await asyncio.sleep(0.3)
        assert len(memory.log) == said


async def test_a_disk_that_does_not_answer_takes_its_root_offline_and_no_other(tmp_path):
    lane = DiskLane(deadline_s=0.1)
    release = threading.Event()

    def context(number):
        root = Root(RootId(number), b"/r%d" % number)
        return RootContext(root, Rules(root.path, WatchSettings()), NoCoverage(), 1)

    with pytest.raises(RootUnreadable, match="does not answer"):
        await lane.run(context(1), release.wait)
    assert lane.is_stuck(ONE)
    assert await lane.run(context(2), lambda: "fine") == "fine"
    with pytest.raises(RootUnreadable):
        await lane.run(context(1), lambda: "not asked")
    release.set()
    await until(lambda: not lane.is_stuck(ONE))
    lane.close()
