"""Scans against a real folder: what happened while nobody watched, what must not be read, what costs nothing."""

import asyncio
import os
import shutil
import sys
import time
from types import SimpleNamespace

import pytest
from watch_world import ONE, MemoryTree, differences, scanned, small_tree, until, watching

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.settings import WatchSettings
from msearchd.watch.attach import attach
from msearchd.watch.changes import DirScanned, FileGone, FileLeft, FileMoved, FileSeen, FileTouched, TreeGone, TreeMoved
from msearchd.watch.disk import RootContext
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import Rules


@pytest.fixture
def root(tmp_path):
    return small_tree(tmp_path / "root")


async def test_what_changed_while_the_daemon_was_down_is_found(root, tmp_path):
    memory = await scanned(root, tmp_path)
    (root / "a" / "0.txt").write_text("changed")
    (root / "a" / "1.txt").unlink()
    (root / "b" / "c" / "new.md").write_text("new")
    shutil.rmtree(root / "b" / "c" / "none", ignore_errors=True)
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert differences(memory, root) == []
    assert {c.path for c in memory.of(FileSeen)} == {b"a/0.txt", b"b/c/new.md"}
    assert [c.path for c in memory.of(FileGone)] == [b"a/1.txt"]
    assert not any(c.is_live for c in memory.of(FileSeen))


async def test_an_unchanged_tree_writes_nothing(root, tmp_path):
    memory = await scanned(root, tmp_path)
    aged(memory, b"", b"a", b"b", b"b/c")
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert memory.log == []


def aged(memory, *folders):
    """As if the last scan had been a minute later: the racy rule then trusts the stored times."""
    for folder in folders:
        node = memory._find(ONE, folder)
        object.__setattr__(node.known, "scanned_ms", node.known.scanned_ms + 60_000)


async def test_phase_one_of_a_start_names_the_changed_folders_and_no_other(root, tmp_path):
    memory = await scanned(root, tmp_path)
    aged(memory, b"", b"a", b"b", b"b/c")
    (root / "b" / "c" / "new.md").write_text("new")
    (root / "a" / "0.txt").write_text("edited in place: only phase two sees it")
    batch = [(path, memory._find(ONE, path).known) for path in (b"", b"a", b"b", b"b/c")]
    context = RootContext(Root(ONE, os.fsencode(root)), Rules(os.fsencode(root), WatchSettings()), NoCoverage(), 10**9)
    assert attach(context, batch) == [b"b/c"]
    shutil.rmtree(root / "b" / "c")
    assert attach(context, batch) == [b"b"]


async def test_a_stamp_as_young_as_its_scan_is_not_trusted(root, tmp_path):
    memory = await scanned(root, tmp_path)
    batch = [(b"a", memory._find(ONE, b"a").known)]
    context = RootContext(Root(ONE, os.fsencode(root)), Rules(os.fsencode(root), WatchSettings()), NoCoverage(), 10**9)
    assert attach(context, batch) == [b"a"]


async def test_a_folder_renamed_while_down_is_one_move(root, tmp_path):
    memory = await scanned(root, tmp_path)
    (root / "a").rename(root / "z")
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert [(c.old, c.new) for c in memory.of(TreeMoved)] == [(b"a", b"z")]
    assert not memory.of(FileSeen)
    assert differences(memory, root) == []


async def test_a_file_moved_while_down_is_one_move_if_its_old_folder_is_met_first(root, tmp_path):
    memory = await scanned(root, tmp_path)
    (root / "a" / "0.txt").rename(root / "b" / "c" / "moved.txt")
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert [(c.old, c.new) for c in memory.of(FileMoved)] == [(b"a/0.txt", b"b/c/moved.txt")]
    assert differences(memory, root) == []


async def test_a_reused_inode_number_is_no_move(root, tmp_path):
    memory = await scanned(root, tmp_path)
    old = (root / "a" / "0.txt").stat().st_ino
    (root / "a" / "0.txt").unlink()
    for n in range(50):  # ext4 gives the number to the next file
        (root / "b" / f"{n}").write_text("other bytes")
        if (root / "b" / f"{n}").stat().st_ino == old:
            break
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert not memory.of(FileMoved)
    assert differences(memory, root) == []


async def test_a_chmod_is_a_touch_and_no_new_bytes(root, tmp_path):
    memory = await scanned(root, tmp_path)
    (root / "a" / "0.txt").chmod(0o600)
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert [c.path for c in memory.of(FileTouched)] == [b"a/0.txt"]
    assert not memory.of(FileSeen)


async def test_a_file_over_the_limit_is_left_and_seen_once_the_limit_is_raised(root, tmp_path):
    (root / "big.bin").write_bytes(b"x" * 2000)
    memory = await scanned(root, tmp_path, max_file_bytes=1000)
    assert [(c.path, c.reason) for c in memory.of(FileLeft)] == [(b"big.bin", "larger than 1000 bytes")]
    memory.log.clear()
    await scanned(root, tmp_path, memory, max_file_bytes=1000)
    assert not memory.of(FileLeft)
    await scanned(root, tmp_path, memory, max_file_bytes=5000)
    assert [c.path for c in memory.of(FileSeen)] == [b"big.bin"]


async def test_a_file_without_bytes_on_disk_is_a_placeholder_and_never_read(root, tmp_path):
    with (root / "cloud.jpg").open("wb") as file:
        file.truncate(10_000_000)
    with (root / "small-hole").open("wb") as file:
        file.truncate(1000)
    with (root / "half.bin").open("wb") as file:
        file.truncate(10_000_000)
        file.seek(5_000_000)
        file.write(b"data" * 5000)
    memory = await scanned(root, tmp_path)
    assert [(c.path, c.reason) for c in memory.of(FileLeft)] == [(b"cloud.jpg", "cloud placeholder")]
    with (root / "cloud.jpg").open("r+b") as file:  # filled by its provider, times set back
        before = os.stat(root / "cloud.jpg")
        file.write(b"x" * 100_000)
    os.utime(root / "cloud.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert [c.path for c in memory.of(FileSeen)] == [b"cloud.jpg"]


async def test_a_type_that_is_left_out_from_now_on_goes_and_comes_back_with_the_setting(root, tmp_path):
    (root / "a" / "film.mp4").write_bytes(b"x")
    memory = await scanned(root, tmp_path)
    before = set(memory.all_files())
    await scanned(root, tmp_path, memory, exclude_types=(".mp4",))
    assert set(memory.all_files()) == before - {b"a/film.mp4"}
    await scanned(root, tmp_path, memory)
    assert set(memory.all_files()) == before


async def test_what_may_be_a_placeholder_is_never_opened(root, tmp_path, monkeypatch):
    """On a cloud drive opening is enough to fetch the bytes; it used to be opened to ask for its holes."""
    with (root / "cloud.jpg").open("wb") as file:
        file.truncate(10_000_000)
    opened = []
    real = os.open

    def remembers(path, flags, *args, **kwargs):
        if not flags & os.O_DIRECTORY:
            opened.append(os.fsencode(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", remembers)
    memory = await scanned(root, tmp_path)
    assert [c.path for c in memory.of(FileLeft)] == [b"cloud.jpg"]
    assert not [path for path in opened if b"cloud" in path or b"/fd/" in path]


async def test_on_a_file_system_that_counts_no_blocks_their_absence_proves_nothing(root, tmp_path, monkeypatch):
    with (root / "large.jpg").open("wb") as file:
        file.truncate(10_000_000)
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_blocks=0, f_fsid=real(fd).f_fsid))
    memory = await scanned(root, tmp_path)
    assert not memory.of(FileLeft)
    assert b"large.jpg" in memory.all_files()


async def test_one_root_in_another_is_refused(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, _):
        for path in (root / "a", tmp_path):
            with pytest.raises(errors.BadRequest, match="overlap"):
                await watcher.add_root(Root(RootId(2), os.fsencode(path)))
        await watcher.add_root(Root(RootId(2), os.fsencode(str(root) + "2")))  # a name that only begins alike


async def test_a_scan_reports_what_it_did(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, _):
        await watcher.sync(deadline_s=20)
        (root / "a" / "0.txt").unlink()
        summary = await watcher.scan_now(ONE)
        assert (summary.dirs, summary.files, summary.vanished) == (4, 9, 1)
        with pytest.raises(errors.NotFound):
            await watcher.scan_now(RootId(9))


async def test_a_scan_of_many_files_never_holds_the_loop(root, tmp_path):
    for n in range(20):
        folder = root / f"many{n}"
        folder.mkdir()
        for m in range(150):
            (folder / f"{m}").touch()
    gaps = []

    async def metronome():
        at = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - at - 0.001)
            at = time.perf_counter()

    task = asyncio.create_task(metronome())
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=30)
        assert len(memory.all_files()) == 3010
    task.cancel()
    assert sorted(gaps)[int(len(gaps) * 0.95)] < 0.05  # a slice is 20 ms of another thread; the loop gets its share


async def test_a_save_during_a_long_scan_is_not_held_up(root, tmp_path):
    for n in range(40):
        folder = root / f"many{n}"
        folder.mkdir()
        for m in range(50):
            (folder / f"{m}").touch()
    async with watching(root, tmp_path / "state", settle_closed_s=0) as (watcher, memory):
        await watcher.sync(deadline_s=30)
        for n in range(40):
            for m in range(50):
                os.utime(root / f"many{n}" / f"{m}", (1, 1))
        memory.log.clear()
        watcher.request_scan(ONE)
        (root / "a" / "urgent.txt").write_text("x")
        await until(lambda: b"a/urgent.txt" in memory.all_files())
    seen = [c.path for c in memory.log if isinstance(c, FileSeen)]
    assert b"a/urgent.txt" in seen


async def test_files_still_being_written_are_not_taken_by_a_scan(root, tmp_path):
    async with watching(root, tmp_path / "state", settle_modified_s=0.5, backend="polling") as (watcher, memory):
        (root / "a" / "growing.bin").write_bytes(b"1")
        watcher.request_scan(ONE)
        await until(lambda: watcher.snapshot().pending > 0)
        assert b"a/growing.bin" not in memory.all_files()
        await until(lambda: b"a/growing.bin" in memory.all_files(), deadline_s=5)


async def test_a_deep_tree_needs_no_more_descriptors_than_a_flat_one(root, tmp_path):
    deep = root
    for _ in range(120):
        deep /= "d"
    deep.mkdir(parents=True)
    (deep / "f.txt").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    memory = await scanned(root, tmp_path)
    assert b"d/" * 120 + b"f.txt" in memory.all_files()
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_a_tree_known_before_and_gone_now_is_one_deletion(root, tmp_path):
    memory = await scanned(root, tmp_path)
    shutil.rmtree(root / "b")
    memory.log.clear()
    await scanned(root, tmp_path, memory)
    assert [c.path for c in memory.of(TreeGone)] == [b"b"]
    assert not memory.of(FileGone)


def test_the_memory_of_these_tests_is_idempotent():
    memory = MemoryTree()
    change = DirScanned(ONE, b"a", 1, 2, 3, 4, 5)
    for _ in range(2):
        memory._apply_one(change)
    assert list(memory.tops[ONE].dirs) == [b"a"]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
async def test_known_folders_are_watched_again_after_a_start_and_links_are_not_followed(root, tmp_path):
    """One became a link to a folder outside, one another folder: neither is taken for what was known."""
    memory = await scanned(root, tmp_path)
    aged(memory, b"", b"a", b"b", b"b/c")
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(root / "a")
    (root / "a").symlink_to(outside)
    async with watching(root, tmp_path / "state", memory=memory, backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert watcher.snapshot().dirs_watched == 3
        (outside / "not-ours.md").write_text("x")
        (root / "b" / "c" / "ours.md").write_text("x")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert b"b/c/ours.md" in memory.all_files()
        assert not any(path.endswith(b"not-ours.md") for path in memory.all_files())
