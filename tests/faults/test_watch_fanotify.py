"""fanotify: what made it lose a file now and then, each as a few steps. Needs its privileges."""

import errno
import os
import sys
import time

import pytest
from watch_world import differences, may_fanotify, until, watching

from msearchd.watch.sources import fanotify
from msearchd.watch.sources import fanotify_abi as abi

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or not may_fanotify(), reason="needs the privileges of fanotify"),
]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "1.txt").write_text("x")
    return folder


async def test_an_event_that_comes_while_its_file_system_is_marked_does_not_make_its_folder_deaf(
    root, tmp_path, monkeypatch
):
    """The mark stands, the source's thread waits for its turn, the loop reads an event: the folder was taken for another's,
    and remembered as such."""
    real = abi.mark_file_system

    def slow(fd, mask, directory):
        real(fd, mask, directory)
        (root / "a" / "meanwhile.txt").write_text("x")
        time.sleep(0.3)

    monkeypatch.setattr(abi, "mark_file_system", slow)
    monkeypatch.setattr(fanotify, "_TREE_CHANGED", 0)  # others rename folders of this disk, and hide the fault
    async with watching(root, tmp_path / "state", backend="fanotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        (root / "a" / "2.txt").write_text("x")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []


async def test_a_folder_that_cannot_be_found_by_its_handle_puts_all_in_doubt_and_is_asked_for_again(
    root, tmp_path, monkeypatch
):
    real = abi.open_handle

    def fails(mount, handle):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with watching(root, tmp_path / "state", backend="fanotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        monkeypatch.setattr(abi, "open_handle", fails)
        (root / "a" / "2.txt").write_text("x")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert "cannot be found by its handle" in watcher.snapshot().last_doubt
        monkeypatch.setattr(abi, "open_handle", real)
        (root / "a" / "3.txt").write_text("x")
        await until(lambda: differences(memory, root) == [])


def test_a_place_found_by_the_bases_of_before_is_not_remembered(root, tmp_path, monkeypatch):
    """Another root is added while the loop finds a place: what it found belongs to the world before."""
    source = fanotify.FanotifySource(notify=lambda: None, state_dir=tmp_path)
    event = abi.Event(abi.CREATE, 7, b"handle", b"x")

    def finds(base, handle):
        source._put_bases({(2, b""): fanotify._Base(2, b"/two", b"", 7)})
        return b"/elsewhere"

    source._put_bases({(1, b""): fanotify._Base(1, b"/one", b"", 7)})
    monkeypatch.setattr(fanotify, "_path_of", finds)
    source._on_event(event)
    monkeypatch.setattr(fanotify, "_path_of", lambda *_: b"/two/in")
    source._on_event(event)
    assert [(hint.root, hint.path) for hint in source.hints()] == [(2, b"in/x")]
