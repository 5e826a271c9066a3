"""Scans against a real folder: what happened while nobody watched, what must not be read, what costs nothing."""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watch_world import ONE, MemoryTree, differences, until, watching

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.settings import WatchSettings
from msearchd.watch import default_excludes
from msearchd.watch.attach import attach
from msearchd.watch.changes import DirScanned, FileGone, FileLeft, FileMoved, FileSeen, FileTouched, TreeGone, TreeMoved
from msearchd.watch.disk import RootContext
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import FolderRules, Rules
from msearchd.watch.patterns import PatternSet


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    for name in ("a", "b", "b/c"):
        (folder / name).mkdir(parents=True)
    for n in range(5):
        (folder / "a" / f"{n}.txt").write_text(f"a{n}")
        (folder / "b" / "c" / f"{n}.md").write_text(f"c{n}" * n)
    return folder


async def scanned(root, tmp_path, memory=None, **settings):
    """Watch, come in step, stop: the memory afterwards."""
    async with watching(root, tmp_path / "state", memory=memory, backend="polling", **settings) as (watcher, after):
        await watcher.sync(deadline_s=20)
    return after


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


async def test_a_folder_with_nomedia_is_left_out_as_a_whole(root, tmp_path):
    memory = await scanned(root, tmp_path)
    (root / "b" / ".nomedia").touch()
    await scanned(root, tmp_path, memory)
    assert set(memory.all_files()) == {b"a/%d.txt" % n for n in range(5)}
    (root / "b" / ".nomedia").unlink()
    await scanned(root, tmp_path, memory)
    assert differences(memory, root) == []


async def test_the_daemons_own_folder_is_never_indexed(root):
    async with watching(root, root / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert not [p for p in memory.all_files() if p.startswith(b"state")]
        assert watcher.verdict(os.fsencode(root / "state" / "x.db")).is_excluded


async def test_excluded_folders_take_no_watch(root, tmp_path):
    deep = root / "node_modules" / "x" / "y"
    deep.mkdir(parents=True)
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert watcher.snapshot().dirs_watched == 4  # the root, a, b, b/c


async def test_a_verdict_names_the_rule_and_its_line(root, tmp_path):
    (root / ".msearchignore").write_text("# mine\n*.log\n")
    (root / "a" / "x.log").touch()
    (root / "link").symlink_to(root)
    async with watching(root, tmp_path / "state") as (watcher, _):
        verdict = watcher.verdict(os.fsencode(root / "a" / "x.log"))
        assert (verdict.is_excluded, verdict.rule) == (True, "*.log")
        assert verdict.rule_origin == f"{root}/.msearchignore:2"
        assert watcher.verdict(os.fsencode(root / "link")).rule == "symlink"
        assert watcher.verdict(os.fsencode(root / "a" / "0.txt")).is_excluded is False
        assert watcher.verdict(b"/elsewhere").root is None
        assert watcher.verdict(os.fsencode(root / "a" / "d.part")).rule == "unfinished file"


async def test_gitignore_counts_only_if_asked_for(root, tmp_path):
    (root / ".gitignore").write_text("a/\n")
    memory = await scanned(root, tmp_path)
    assert b"a/0.txt" in memory.all_files()
    memory = await scanned(root, tmp_path, use_gitignore=True)
    assert b"a/0.txt" not in memory.all_files()


async def test_a_line_that_is_no_pattern_is_told_in_the_status(root, tmp_path):
    (root / ".msearchignore").write_text("*.log\n\\\n")
    async with watching(root, tmp_path / "state") as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert ".msearchignore:2" in watcher.snapshot().complaints[0]


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


def test_ignore_files_are_read_without_following_links(tmp_path):
    (tmp_path / "real").write_text("*.txt\n")
    (tmp_path / ".msearchignore").symlink_to(tmp_path / "real")
    rules = Rules(os.fsencode(tmp_path), WatchSettings())
    assert rules.check_path(b"a.txt", is_dir=False) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_itself_agrees_on_the_built_in_list(tmp_path):
    dirs = ["node_modules", "x.egg-info", "site-packages", ".venv", "lost+found"]
    files = ["a.pyc", "desktop.ini", "a.db-wal", "x-journal", "notes.md", "disk.qcow2", ".DS_Store", "node.js"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, capture_output=True)
    (tmp_path / ".gitignore").write_text(default_excludes.DEFAULTS)
    for name in dirs:
        (tmp_path / name).mkdir()
    for name in files:
        (tmp_path / name).touch()
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "check-ignore", *dirs, *files], capture_output=True, text=True, check=False
    )
    patterns = PatternSet(default_excludes.DEFAULTS.splitlines(), "built-in")
    ours = {n for n in [*dirs, *files] if patterns.check(n, n, is_dir=n in dirs)}
    assert {line.strip('"') for line in done.stdout.split("\n") if line} == ours


GIT_LINES = [
    "a", "b/", "*.x", "*.y/", "!a", "!*.x", "/a", "a/b", "a/**/c", "*", "!b/", "[ab]", "a*", "**/b", "!a/b", "# n", "",
    "*.x.y", "a.x", "*/", "**", "a/*", "!*/", "!/a/", "a/**", "!a/**", "\\!a", "a ", "b?", "!b",
]  # fmt: skip
GIT_DIRS = ["a", "b", "a/b", "b/a", "a/x", "a/x/c", "d.y", "b/d.x"]
GIT_FILES = ["a/a", "a/c", "a/x/c/b", "b/a/b", "c.x", "c.x.y", "d.y/b", "ab", "!a", "b/d.x/a", "bb"]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_git_itself_agrees_on_random_lines(tmp_path):
    """Differential against `git check-ignore`, folders asked about before what is in them, as a walk does."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, capture_output=True)
    for name in GIT_DIRS:
        (tmp_path / name).mkdir(exist_ok=True, parents=True)
    for name in GIT_FILES:
        (tmp_path / name).touch()
    chance = random.Random(5)
    rules = Rules(os.fsencode(tmp_path), WatchSettings(use_gitignore=True, use_default_excludes=False))
    for _ in range(150):
        lines = chance.choices(GIT_LINES, k=chance.randint(1, 5))
        (tmp_path / ".gitignore").write_text("\n".join(lines) + "\n")
        rules.forget(b"")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin"],
            input="\n".join([*GIT_DIRS, *GIT_FILES]), capture_output=True, text=True, check=False,
        )  # fmt: skip
        theirs = set(done.stdout.split("\n")) - {""}
        ours = {n for n in GIT_DIRS if rules.check_path(n.encode(), is_dir=True)}
        ours |= {n for n in GIT_FILES if rules.check_path(n.encode(), is_dir=False)}
        assert ours == theirs, lines


def test_the_memory_of_these_tests_is_idempotent():
    memory = MemoryTree()
    change = DirScanned(ONE, b"a", 1, 2, 3, 4, 5)
    for _ in range(2):
        memory._apply_one(change)
    assert list(memory.tops[ONE].dirs) == [b"a"]


async def test_an_unchanged_tree_is_passed_by_without_asking_a_rule_about_any_file(root, tmp_path, monkeypatch):
    memory = await scanned(root, tmp_path)
    memory.log.clear()
    asked = []
    real = FolderRules.check

    def check(self, text, *, is_dir):
        asked.append(text) if not is_dir else None
        return real(self, text, is_dir=is_dir)

    monkeypatch.setattr(FolderRules, "check", check)
    await scanned(root, tmp_path, memory)
    assert asked == []
    (root / "b" / "new.txt").write_text("x")
    await scanned(root, tmp_path, memory)
    assert "new.txt" in asked
    assert [c.path for c in memory.of(FileSeen)] == [b"b/new.txt"]


async def test_a_rule_written_while_the_daemon_was_down_reaches_folders_in_which_nothing_changed(root, tmp_path):
    deep = root / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "x.txt").write_text("x")
    memory = await scanned(root, tmp_path)
    assert b"b/c/d/x.txt" in memory.all_files()
    (root / ".msearchignore").write_text("x.txt\n")
    await scanned(root, tmp_path, memory)
    assert b"b/c/d/x.txt" not in memory.all_files()
    (root / ".msearchignore").unlink()
    await scanned(root, tmp_path, memory)
    assert b"b/c/d/x.txt" in memory.all_files()
    await scanned(root, tmp_path, memory, exclude=("x.txt",))
    assert b"b/c/d/x.txt" not in memory.all_files()


@given(st.lists(st.tuples(st.sampled_from(["", "a", "a/b", "a/b/c"]), st.sampled_from(["x", "!x", "b/", None]))))
def test_remembered_rules_are_always_those_of_the_disk_once_forgotten_where_they_changed(steps):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "a" / "b" / "c").mkdir(parents=True)
        kept = Rules(os.fsencode(base), WatchSettings())
        for at, line in steps:
            path = base / at / ".msearchignore"
            path.write_text(line + "\n") if line else path.unlink(missing_ok=True)
            kept.forget(os.fsencode(at))
            fresh = Rules(os.fsencode(base), WatchSettings())
            for where in (b"", b"a", b"a/b", b"a/b/c"):
                assert kept.salt(where) == fresh.salt(where)
                for name in ("x", "b"):
                    assert kept.folder(where).check(name, is_dir=name == "b") == fresh.folder(where).check(
                        name, is_dir=name == "b"
                    )


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
