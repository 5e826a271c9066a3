"""What the watch tests share: a tree that remembers (KnownTree and ChangeSink in memory), a watcher over it, and a
generator of file operations. The memory's meaning of each change is the contract that the catalog keeps too."""

import asyncio
import contextlib
import os
import random
import shutil
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from msearchd import errors
from msearchd.domain.asset import KnownDir, Root, RootId, RootState, StatFingerprint
from msearchd.settings import WatchSettings
from msearchd.watch import changes as ch
from msearchd.watch.sources import choice
from msearchd.watch.watcher import Watcher

ONE = RootId(1)


@dataclass
class Node:
    files: dict = field(default_factory=dict)
    dirs: dict = field(default_factory=dict)
    known: KnownDir | None = None


class MemoryTree:
    """Applies changes to nested dicts. Also a log of everything that was applied."""

    def __init__(self):
        self.tops = {}
        self.states = {}
        self.left = {}
        self.log = []
        self.fail_next = []  # exceptions for the next calls of apply

    # -- KnownTree

    async def directory(self, root, path):
        node = self._find(root, path)
        return node.known if node else None

    async def some_directories(self, root, wanted):
        found = {path: self._find(root, path) for path in wanted}
        return {path: node.known if node else None for path, node in found.items()}

    async def files(self, root, path):
        node = self._find(root, path)
        return dict(node.files) if node else {}

    async def file(self, root, path):
        folder, _, name = path.rpartition(b"/")
        node = self._find(root, folder)
        return node.files.get(name) if node else None

    async def subdirs(self, root, path):
        node = self._find(root, path)
        return list(node.dirs) if node else []

    async def directories(self, root, path=b"") -> AsyncIterator[list]:
        node = self._find(root, path)
        stack = [(path, node)] if node else []
        batch = []
        while stack:
            at, node = stack.pop()
            if node.known:
                batch.append((at, node.known))
            if len(batch) >= 500 or (batch and not stack and not node.dirs):
                yield batch
                batch = []
            stack += [(at + b"/" + name if at else name, child) for name, child in node.dirs.items()]

    async def count_files(self, root, path=b""):
        node = self._find(root, path)
        count, stack = 0, [node] if node else []
        while stack:
            at = stack.pop()
            count += len(at.files)
            stack += at.dirs.values()
        return count

    # -- ChangeSink

    async def apply(self, changes):
        if self.fail_next:
            raise self.fail_next.pop(0)
        for change in changes:
            self.log.append(change)
            self._apply_one(change)

    def _apply_one(self, c):
        match c:
            case ch.FileSeen() | ch.FileLeft():
                folder, _, name = c.path.rpartition(b"/")
                self._make(c.root, folder).files[name] = c.fingerprint
                self.left.pop((c.root, c.path), None)
                if isinstance(c, ch.FileLeft):
                    self.left[c.root, c.path] = c.reason
            case ch.FileTouched():
                folder, _, name = c.path.rpartition(b"/")
                node = self._find(c.root, folder)
                if node and name in node.files:
                    node.files[name] = c.fingerprint
            case ch.FileGone():
                folder, _, name = c.path.rpartition(b"/")
                if node := self._find(c.root, folder):
                    node.files.pop(name, None)
            case ch.TreeGone():
                assert c.path, "a root is never gone"
                folder, _, name = c.path.rpartition(b"/")
                if node := self._find(c.root, folder):
                    node.dirs.pop(name, None)
            case ch.FileMoved():
                folder, _, name = c.old.rpartition(b"/")
                if node := self._find(c.root, folder):
                    node.files.pop(name, None)
                folder, _, name = c.new.rpartition(b"/")
                self._make(c.new_root, folder).files[name] = c.fingerprint
            case ch.TreeMoved():
                folder, _, name = c.old.rpartition(b"/")
                node = self._find(c.root, folder)
                moved = node.dirs.pop(name, None) if node else None
                if moved is not None:
                    folder, _, name = c.new.rpartition(b"/")
                    self._make(c.new_root, folder).dirs[name] = moved
            case ch.DirScanned():
                self._make(c.root, c.path).known = KnownDir(c.inode, c.mtime_ns, c.ctime_ns, c.signature, c.scanned_ms)
            case ch.RootWent():
                self.states[c.root] = (c.state, c.reason)

    # -- looking

    def all_files(self, root=ONE):
        top = self.tops.get(root)
        return dict(self._walk(top, b"")) if top else {}

    def of(self, kind):
        return [c for c in self.log if isinstance(c, kind)]

    def _walk(self, node, at):
        for name, fingerprint in node.files.items():
            yield (at + b"/" + name if at else name), fingerprint
        for name, child in node.dirs.items():
            yield from self._walk(child, at + b"/" + name if at else name)

    def _find(self, root, path):
        node = self.tops.get(root)
        for name in path.split(b"/") if path else []:
            if node is None:
                return None
            node = node.dirs.get(name)
        return node

    def _make(self, root, path):
        node = self.tops.setdefault(root, Node())
        for name in path.split(b"/") if path else []:
            node = node.dirs.setdefault(name, Node())
        return node


def on_disk(root):
    """path -> fingerprint of every regular file below *root*: what the memory must equal."""
    out = {}
    base = os.fsencode(root)
    for folder, _, names in os.walk(base):
        for name in names:
            if name.endswith((b".tmp", b"~")):  # a save that failed halfway: never indexed
                continue
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                out[path[len(base) + 1 :]] = StatFingerprint.of(status)
    return out


def differences(memory, root, root_id=ONE):
    """Human-readable lines; empty if memory and disk agree."""
    disk, known = on_disk(root), memory.all_files(root_id)
    lines = [f"missing {p!r} {disk[p]}" for p in disk.keys() - known.keys()]
    lines += [f"left over {p!r}" for p in known.keys() - disk.keys()]
    lines += [f"stale {p!r}: {known[p]} is {disk[p]}" for p in disk.keys() & known.keys() if disk[p] != known[p]]
    return lines


FAST = {
    "settle_closed_s": 0.02,
    "settle_created_s": 0.1,
    "settle_modified_s": 0.05,
    "settle_gone_s": 0.02,
}


@contextlib.asynccontextmanager
async def watching(folder, state_dir, *, memory=None, **settings):
    """A running watcher over *folder* (root 1): (watcher, memory)."""
    memory = memory if memory is not None else MemoryTree()
    state_dir.mkdir(exist_ok=True)
    watcher = Watcher(WatchSettings(**{**FAST, **settings}), memory, memory, state_dir=state_dir)
    task = asyncio.create_task(watcher.run())
    await watcher.add_root(Root(ONE, os.fsencode(folder)))
    try:
        yield watcher, memory
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition, *, deadline_s=10.0):
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


def state_of(watcher):
    return watcher.snapshot().roots[0].state


def may_fanotify():
    """True where this process may watch whole file systems: root on Linux, if its sandbox lets it."""
    try:
        return choice.resolve_backend("fanotify") == "fanotify"
    except errors.Misconfigured:
        return False


class FileOps:
    """Random operations on a real folder, seeded. Nothing is truncated by path, mapped, or written
    through a second hard link: no event tells of those, they wait for the full scan."""

    #: Never touched: a root that is empty all at once, while nobody watched, is rightly taken for a disk that is away.
    KEPT = "never empty"
    NAMES = ("a", "b", "c", "d.txt", "e.md", "\udcff.bin", "f g")

    def __init__(self, root: Path, outside: Path, seed: int):
        self.root, self.outside, self.rng = root, outside, random.Random(seed)
        outside.mkdir(exist_ok=True)
        self.count = 0

    def run(self, steps):
        for _ in range(steps):
            self.step()

    def step(self):
        op = self.rng.choices(
            [self.write, self.append, self.mkdirs, self.rename_file, self.rename_dir, self.unlink, self.rmtree,
             self.move_out, self.move_in, self.atomic_save, self.file_to_dir, self.chmod, self.utime, self.touch_dir,
             self.symlink, self.copytree, self.write_outside, self.vim_save],
            [14, 4, 9, 5, 6, 3, 1, 1, 3, 4, 1, 1, 1, 1, 1, 1, 2, 2],
        )[0]  # fmt: skip
        self.count += 1
        with contextlib.suppress(OSError, shutil.Error):
            op()

    # -- choices

    def dirs(self, base=None):
        out = [base or self.root]
        for folder, names, _ in os.walk(base or self.root):
            out += [Path(folder) / name for name in names if not (Path(folder) / name).is_symlink()]
        return out

    def walk_down(self, base):
        """A chance walk from *base* down: (the folder it ends in, its files). A whole walk a step would be the test."""
        at = base
        while True:
            with os.scandir(at) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            dirs = [e.path for e in found if e.is_dir(follow_symlinks=False)]
            if not dirs or self.rng.random() < 0.25:
                files = [e for e in found if e.is_file(follow_symlinks=False) and e.name != self.KEPT]
                return Path(at), [Path(e.path) for e in files]
            at = self.rng.choice(dirs)

    def a_dir(self, base=None):
        return self.walk_down(base or self.root)[0]

    def a_child_dir(self, base=None):
        """Never *base* itself; raises FileNotFoundError where it has no child."""
        path = self.a_dir(base)
        if path == (base or self.root):
            raise FileNotFoundError
        return path

    def a_file(self):
        for _ in range(5):
            _, files = self.walk_down(self.root)
            if files:
                return self.rng.choice(files)
        raise FileNotFoundError

    def place(self):
        return self.a_dir() / self.rng.choice(self.NAMES)

    def text(self):
        return (f"{self.count} " * self.rng.randint(0, 40)).encode()

    # -- operations

    def write(self):
        self.place().write_bytes(self.text())

    def append(self):
        with self.a_file().open("ab") as file:
            file.write(b"x")

    def mkdirs(self):
        path = self.a_dir()
        for _ in range(self.rng.randint(1, 4)):
            path /= self.rng.choice(self.NAMES)
        path.mkdir(parents=True)
        (path / "in.txt").write_bytes(self.text())

    def rename_file(self):
        self.a_file().rename(self.place())

    def rename_dir(self):
        self.a_child_dir().rename(self.place())

    def unlink(self):
        self.a_file().unlink()

    def rmtree(self):
        shutil.rmtree(self.a_child_dir())

    def move_out(self):
        self.a_child_dir().rename(self.outside / f"o{self.count}")

    def move_in(self):
        out = sorted(self.outside.iterdir())
        if out:
            self.rng.choice(out).rename(self.place())

    def write_outside(self):
        (self.a_child_dir(self.outside) / self.rng.choice(self.NAMES)).write_bytes(self.text())

    def atomic_save(self):
        path = self.a_file()
        fresh = path.with_name(f"x{self.count}.tmp")
        fresh.write_bytes(self.text())
        fresh.rename(path)

    def vim_save(self):
        path = self.a_file()
        backup = path.with_name(path.name + "~")
        path.rename(backup)
        path.write_bytes(self.text())
        backup.unlink()

    def file_to_dir(self):
        path = self.a_file()
        path.unlink()
        path.mkdir()
        (path / "in.txt").write_bytes(b"1")

    def chmod(self):
        self.a_file().chmod(self.rng.choice([0o644, 0o600]))

    def utime(self):
        os.utime(self.a_file(), (1, self.rng.randint(1, 10**9)))

    def touch_dir(self):
        self.a_dir().chmod(self.rng.choice([0o755, 0o700]))

    def symlink(self):
        self.place().symlink_to(self.rng.choice([self.root, Path("/etc"), self.a_file()]))

    def copytree(self):
        source, target = self.a_child_dir(), self.place()
        if not target.is_relative_to(source):
            shutil.copytree(source, target, symlinks=True)


__all__ = ["FAST", "FileOps", "MemoryTree", "RootState", "differences", "on_disk", "state_of", "until", "watching"]


def small_tree(folder):
    """*folder*, made, with ten files in two of its three folders."""
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
