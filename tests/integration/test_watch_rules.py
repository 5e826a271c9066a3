"""Rules that leave out, on a real disk: what they reach, when, and what git itself makes of the same lines."""

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from watch_world import differences, scanned, small_tree, watching

from msearchd.settings import WatchSettings
from msearchd.watch import default_excludes
from msearchd.watch.changes import FileSeen
from msearchd.watch.ignore import FolderRules, Rules
from msearchd.watch.patterns import PatternSet


@pytest.fixture
def root(tmp_path):
    return small_tree(tmp_path / "root")


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
