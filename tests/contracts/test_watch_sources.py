"""One promise, every source: what happens on the disk reaches the sink, by itself and at `sync`."""

import asyncio
import os
import shutil
import sys

import pytest
from watch_world import differences, may_fanotify, until, watching

from msearchd.watch.changes import FileGone, FileMoved, FileSeen, TreeGone, TreeMoved

BACKENDS = ["watchdog", "polling"] + (["inotify"] if sys.platform == "linux" else [])


if may_fanotify():
    BACKENDS.append("fanotify")
LIVE = [b for b in BACKENDS if b != "polling"]


@pytest.fixture(params=BACKENDS)
async def world(request, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").mkdir()
    (root / "old" / "a.txt").write_text("a")
    (root / "old" / "sub").mkdir()
    (root / "old" / "sub" / "b.txt").write_text("b")
    async with watching(root, tmp_path / "state", backend=request.param) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.log.clear()
        yield root, watcher, memory


async def check(world):
    root, watcher, memory = world
    await watcher.sync(deadline_s=20)
    assert differences(memory, root) == []


async def test_what_was_there_before_is_known(world):
    _, _, memory = world
    assert set(memory.all_files()) == {b"old/a.txt", b"old/sub/b.txt"}


async def test_a_new_file_is_seen_once(world):
    root, _, memory = world
    (root / "n.txt").write_text("x")
    await check(world)
    await check(world)
    assert [c.path for c in memory.of(FileSeen)] == [b"n.txt"]


async def test_a_rewritten_file_is_seen(world):
    root, _, memory = world
    (root / "old" / "a.txt").write_text("longer")
    await check(world)
    assert [c.path for c in memory.of(FileSeen)] == [b"old/a.txt"]


async def test_an_atomic_save_is_one_change_and_no_deletion(world):
    root, _, memory = world
    (root / "old" / "a.txt.tmp").write_text("new")
    (root / "old" / "a.txt.tmp").rename(root / "old" / "a.txt")
    await check(world)
    assert [c.path for c in memory.of(FileSeen)] == [b"old/a.txt"]
    assert not memory.of(FileGone)


async def test_a_deleted_file_is_gone(world):
    root, _, memory = world
    (root / "old" / "a.txt").unlink()
    await check(world)
    assert [c.path for c in memory.of(FileGone)] == [b"old/a.txt"]


async def test_a_renamed_file_is_moved_without_being_read_again(world):
    root, _, memory = world
    (root / "old" / "a.txt").rename(root / "old" / "z.txt")
    await check(world)
    assert [(c.old, c.new) for c in memory.of(FileMoved)] == [(b"old/a.txt", b"old/z.txt")]
    assert not memory.of(FileSeen)


async def test_a_renamed_folder_is_one_move_and_no_file_is_read_again(world):
    root, _, memory = world
    (root / "old").rename(root / "new")
    await check(world)
    assert [(c.old, c.new) for c in memory.of(TreeMoved)] == [(b"old", b"new")]
    assert not memory.of(FileSeen)


async def test_a_folder_moved_out_is_gone_as_one(world, tmp_path):
    root, _, memory = world
    (root / "old").rename(tmp_path / "out")
    await check(world)
    assert [c.path for c in memory.of(TreeGone)] == [b"old"]


async def test_a_folder_moved_in_is_seen_with_all_in_it(world, tmp_path):
    root, _, memory = world
    shutil.copytree(root / "old", tmp_path / "copy")
    (tmp_path / "copy").rename(root / "in")
    await check(world)
    assert b"in/sub/b.txt" in memory.all_files()


async def test_files_made_at_once_in_deep_new_folders_are_all_seen(world):
    root, _, memory = world
    for n in range(30):
        deep = root / f"d{n}" / "a" / "b" / "c"
        deep.mkdir(parents=True)
        (deep / "f.txt").write_text("x")
        (deep.parent / "g.txt").write_text("y")
    await check(world)
    assert len(memory.all_files()) == 62


async def test_a_folder_that_becomes_a_file_and_back(world):
    root, _, _ = world
    shutil.rmtree(root / "old")
    (root / "old").write_text("file now")
    await check(world)
    (root / "old").unlink()
    (root / "old").mkdir()
    (root / "old" / "again.txt").write_text("x")
    await check(world)


async def test_a_folder_that_moved_away_while_its_child_took_its_place(world):
    """In one breath: the parent goes elsewhere, the child becomes the parent, and both hold a new `c`."""
    root, _, _ = world
    (root / "e").mkdir()
    (root / "old" / "sub" / "c").write_text("child")
    await check(world)
    (root / "old" / "sub").rename(root / "x")
    (root / "old").rename(root / "e" / "old")
    (root / "x").rename(root / "old")
    (root / "old" / "c").write_text("child again, longer")
    (root / "e" / "old" / "c").write_text("parent")
    await check(world)
    (root / "old").rename(root / "y")
    (root / "e" / "old").rename(root / "old")
    (root / "y").rename(root / "e" / "old")
    await check(world)


@pytest.mark.parametrize("world", LIVE, indirect=True)
async def test_a_file_compared_under_a_name_whose_folder_had_moved_away_is_not_lost(world):
    """The file is known before the move is: its entry then goes along with the move, and must come back."""
    root, _, memory = world
    (root / "e").mkdir()
    (root / "old" / "sub" / "c").mkdir()
    await check(world)
    (root / "old" / "sub").rename(root / "x")
    (root / "old").rename(root / "e" / "old")
    (root / "x").rename(root / "old")
    (root / "old" / "sub").write_text("a file where a folder was, in a folder that was its child")
    await until(lambda: b"old/sub" in memory.all_files())
    await check(world)


async def test_two_folders_that_swap_their_names(world):
    root, _, _ = world
    (root / "new").mkdir()
    (root / "new" / "n.txt").write_text("n")
    await check(world)
    for _ in range(3):
        (root / "old").rename(root / "swap")
        (root / "new").rename(root / "old")
        (root / "swap").rename(root / "new")
        await check(world)


async def test_names_that_are_not_utf8_are_names(world):
    root, _, memory = world
    name = os.fsencode(root) + b"/caf\xe9 \xff.txt"
    with open(name, "wb") as file:
        file.write(b"x")
    await check(world)
    assert b"caf\xe9 \xff.txt" in memory.all_files()


async def test_links_pipes_and_sockets_are_left_out(world):
    root, _, memory = world
    (root / "link.txt").symlink_to(root / "old" / "a.txt")
    (root / "linked").symlink_to(root / "old")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe")
    await check(world)
    assert set(memory.all_files()) == {b"old/a.txt", b"old/sub/b.txt"}


async def test_ignored_files_are_never_seen_and_a_new_rule_takes_effect(world):
    root, watcher, memory = world
    (root / "x.log").write_text("1")
    (root / "node_modules").mkdir()
    (root / "node_modules" / "m.js").write_text("1")
    await watcher.sync(deadline_s=20)
    assert set(memory.all_files()) == {b"old/a.txt", b"old/sub/b.txt", b"x.log"}
    (root / ".msearchignore").write_text("*.log\nsub/\n!node_modules/\n")
    await watcher.sync(deadline_s=20)
    assert set(memory.all_files()) == {b"old/a.txt", b"node_modules/m.js"}


@pytest.mark.parametrize("world", LIVE, indirect=True)
async def test_changes_come_by_themselves_without_sync(world):
    root, _, memory = world
    (root / "old" / "live.txt").write_text("x")
    await until(lambda: b"old/live.txt" in memory.all_files())
    (root / "fresh").mkdir()
    (root / "fresh" / "f.txt").write_text("x")
    await until(lambda: b"fresh/f.txt" in memory.all_files())
    (root / "fresh").rename(root / "renamed")
    await until(lambda: b"renamed/f.txt" in memory.all_files())
    shutil.rmtree(root / "renamed")
    await until(lambda: b"renamed/f.txt" not in memory.all_files())
    (root / "old" / "live.txt").unlink()
    await until(lambda: b"old/live.txt" not in memory.all_files())
    assert differences(memory, root) == []


@pytest.mark.parametrize("world", LIVE, indirect=True)
async def test_a_burst_of_files_comes_by_itself_and_completely(world):
    root, watcher, memory = world
    for n in range(40):
        folder = root / f"b{n % 8}" / f"c{n}"
        folder.mkdir(parents=True)
        for m in range(25):
            (folder / f"{m}.txt").write_text("x")
        await asyncio.sleep(0)
    await until(lambda: len(memory.all_files()) == 1002, deadline_s=30)
    assert watcher.snapshot().health == "ok"


@pytest.mark.parametrize("world", LIVE, indirect=True)
async def test_reading_files_wakes_nobody(world):
    root, watcher, memory = world
    before = watcher.snapshot().last_event_ms
    await asyncio.sleep(0.3)
    for _ in range(50):
        (root / "old" / "a.txt").read_bytes()
        list(root.rglob("*"))
    await asyncio.sleep(0.7)
    assert watcher.snapshot().last_event_ms == before
    assert memory.log == []


async def test_a_removed_root_is_silent(world):
    root, watcher, memory = world
    await watcher.remove_root(1)
    (root / "n.txt").write_text("x")
    await watcher.sync(deadline_s=20)
    await asyncio.sleep(0.3)
    assert memory.log == []
    assert watcher.snapshot().roots == ()


async def test_who_asks_to_be_in_step_while_roots_are_looked_at_gets_what_was_written_before(world, monkeypatch):
    """The look at the roots takes long; hints and the question come meanwhile, and the hints come first."""
    root, watcher, _ = world
    real = watcher._keeper.tend

    async def tend(*, now):
        await real(now=now)
        await until(lambda: watcher._tickets)

    monkeypatch.setattr(watcher._keeper, "tend", tend)
    watcher._tend_soon()
    await asyncio.sleep(0.1)
    (root / "written-before.txt").write_text("x")
    await check(world)
