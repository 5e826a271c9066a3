"""The books of the watches, where a unit of work fails halfway: each directory has its watch, and no watch is of none."""

import errno
import os
import sys

import pytest
from watch_world import ONE, MemoryTree, differences, until, watching

from msearchd import errors
from msearchd.watch import disk, root_keeper
from msearchd.watch import watcher as watcher_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify")


class BusyTree(MemoryTree):
    """Refuses changes while `is_busy`."""

    is_busy = False
    refused = 0

    async def apply(self, changes):
        if self.is_busy:
            self.refused += 1
            raise errors.RetryLater("the database is busy", after_s=0.05)
        await super().apply(changes)


@pytest.fixture(autouse=True)
def quick_tending(monkeypatch):
    monkeypatch.setattr(watcher_module, "_TEND_EVERY_S", 0.1)


@pytest.fixture
def locked(monkeypatch):
    """Folders that cannot be opened, by their paths."""
    names, real = set(), disk.Walk._open

    def opens(walk, path):
        if path in names:
            raise OSError(errno.EACCES, "Permission denied")
        return real(walk, path)

    monkeypatch.setattr(disk.Walk, "_open", opens)
    return names


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root" / "p" / "d" / "x").mkdir(parents=True)
    (tmp_path / "root" / "p" / "d" / "x" / "in.txt").write_text("x")
    (tmp_path / "root" / "keep.txt").write_text("x")
    return tmp_path / "root"


def books(watcher):
    return {path for path, wd in watcher._sources._local._tree.paths_of(ONE) if wd is not None}


def folders(root):
    base = os.fsencode(root)
    return {folder[len(base) + 1 :] for folder, _, _ in os.walk(base)}


def unreadable(watcher):
    return watcher._roots[ONE].unreadable


async def test_a_folder_that_was_entered_never_stored_and_moved_away_is_not_watched_any_more(
    root, tmp_path, locked, monkeypatch
):
    monkeypatch.setattr(root_keeper, "_RETRY_UNREADABLE_S", 0.2)
    async with watching(root, tmp_path / "state", memory=BusyTree(), backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.is_busy = True
        (root / "p" / "new").mkdir()
        await until(lambda: b"p/new" in books(watcher) and memory.refused)
        locked.add(b"p")
        (root / "p" / "new").rename(tmp_path / "outside")
        memory.is_busy = False
        await until(lambda: b"p" in unreadable(watcher))  # its name was looked at in vain
        locked.clear()
        await until(lambda: not unreadable(watcher))
        await watcher.sync(deadline_s=20)
        assert books(watcher) == folders(root)


async def test_a_folder_that_is_listed_before_its_retry_has_what_is_below_compared_too(root, tmp_path, locked):
    (tmp_path / "other" / "x").mkdir(parents=True)
    (tmp_path / "other" / "x" / "other.txt").write_text("another")
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        watcher._roots[ONE].retry_unreadable_at = float("inf")
        locked.add(b"p")
        (root / "p" / "d").rename(tmp_path / "away")
        (tmp_path / "other").rename(root / "p" / "d")
        await until(lambda: b"p" in unreadable(watcher))
        locked.clear()
        (root / "p").chmod(0o700)  # it alone is listed for that
        await until(lambda: not unreadable(watcher))
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        (root / "p" / "d" / "x" / "later.txt").write_text("x")
        await until(lambda: b"p/d/x/later.txt" in memory.all_files())
        assert books(watcher) == folders(root)


async def test_a_folder_that_was_new_to_its_source_is_compared_with_all_below_once_the_sink_takes_it(root, tmp_path):
    async with watching(root, tmp_path / "state", memory=BusyTree(), backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        watcher._sources._local._tree.drop(ONE, b"p/d")  # as where the system refuses its watch
        (root / "p" / "d" / "x" / "unseen.txt").write_text("x")
        memory.is_busy = True
        (root / "p" / "d").chmod(0o700)
        await until(lambda: memory.refused)
        memory.is_busy = False
        await until(lambda: b"p/d/x/unseen.txt" in memory.all_files())
        await watcher.sync(deadline_s=20)
        assert books(watcher) == folders(root)


async def test_a_folder_that_moved_keeps_a_file_where_another_has_a_folder_of_that_name(root, tmp_path):
    (root / "p" / "c").write_text("it goes along")
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        (tmp_path / "other" / "c").mkdir(parents=True)
        (root / "p").rename(root / "moved")
        (tmp_path / "other").rename(root / "p")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert books(watcher) == folders(root)
