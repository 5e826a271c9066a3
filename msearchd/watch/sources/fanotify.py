"""Events of whole file systems: no watch per directory, no limit, nothing to set up. For those who may (system services).

    kernel queue ──▶ events (directory handle, name) ──open_by_handle_at──▶ where that directory is NOW ──▶ hints

In: raw events of every file system that a root lies on, most of them of others' files. Out: hints. A directory is found by its
handle at its present place, so an event read late still speaks of the right one; found places are remembered until a
directory is renamed or removed. The queue has no end: memory of the kernel instead of losses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.watch import hints, paths
from msearchd.watch.backlog import HintBacklog
from msearchd.watch.hints import Coverage, Entered, Hint, SourceHealth
from msearchd.watch.sources import fanotify_abi as abi
from msearchd.watch.sources.cookies import Cookies
from msearchd.watch.sources.gather import meaning

log = structlog.get_logger(__name__)

_MASK: Final = (
    abi.CREATE | abi.CLOSE_WRITE | abi.MOVED_FROM | abi.MOVED_TO | abi.DELETE | abi.ATTRIB | abi.ONDIR
)  # fmt: skip
_READ_BYTES: Final = 64 * 1024
_MAX_REMEMBERED: Final = 50_000  # places of directories, 10 MB
#: What is said of a directory that is gone, or of another file system than the one that is mounted there now.
_NOT_THERE: Final = frozenset({errno.ESTALE, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EOPNOTSUPP})
_TREE_CHANGED: Final = abi.MOVED_FROM | abi.MOVED_TO | abi.DELETE


@dataclass(frozen=True, slots=True)
class _Base:
    """A root, or a disk mounted in it: `path` is where, resolved; `relative` the same inside the root."""

    root: RootId
    path: bytes
    relative: bytes
    file_system: int


class FanotifySource:
    """See the module. `notify` is called when there are hints. `watch_modify`: also wake at every write."""

    name = "fanotify"
    seen_at = 0.0

    def __init__(self, *, notify: Callable[[], None], state_dir: Path, watch_modify: bool = False) -> None:
        self._mask = _MASK | (abi.MODIFY if watch_modify else 0)
        self._notify = notify
        self._cookies = Cookies(state_dir / "watch-cookies")
        self._fd = -1
        self._bases: dict[tuple[RootId, bytes], _Base] = {}
        self._devices: dict[RootId, int] = {}
        self._places: dict[tuple[int, bytes], tuple[tuple[RootId, bytes], ...]] = {}
        self._hints = HintBacklog()
        self._overflows = 0
        self._last_loss = (0, "")
        self.coverage: Coverage = _Coverage(self)

    async def add_root(self, root: Root) -> None:
        """Mark its file system. Raises Misconfigured where the privileges are missing, RetryLater for other trouble."""
        try:
            if self._fd < 0:
                self._fd = await asyncio.to_thread(self._open)
                asyncio.get_running_loop().add_reader(self._fd, self._on_readable)
            self._devices[root.id] = await asyncio.to_thread(self._mark, root.id, root.path)
        except OSError as error:
            if error.errno in {errno.EPERM, errno.ENOSYS, errno.EINVAL}:
                raise missing_privileges() from error
            message = f"cannot watch with fanotify: {error.strerror}"
            raise errors.RetryLater(message, after_s=30) from error

    async def remove_root(self, root_id: RootId) -> None:
        """Pass over its events. The mark stays: other roots may lie on the same file system."""
        self._devices.pop(root_id, None)
        self._put_bases({key: base for key, base in self._bases.items() if key[0] != root_id})

    def hints(self) -> list[Hint]:
        """All hints since the last call."""
        return self._hints.take()

    async def barrier(self, *, deadline_s: float) -> bool:
        """True once every event of operations that ended before the call is among the hints. False: not in time."""
        return self._fd >= 0 and await self._cookies.wait(deadline_s=deadline_s)

    def scanned(self, root: RootId, *, took_s: float) -> None:
        """Nothing to plan."""

    def health(self) -> SourceHealth:
        """Well as long as it runs: there is no limit to reach and no reader to die."""
        return SourceHealth(self.name, overflows=self._overflows, last_loss=self._last_loss)

    async def close(self) -> None:
        """Close the descriptor; its marks go with it."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            fd, self._fd = self._fd, -1
            await asyncio.to_thread(os.close, fd)

    # -- marks (threads) -----------------------------------------------------------------------------------------------

    def _open(self) -> int:
        fd = abi.init()
        try:
            abi.mark_folder(fd, abi.CREATE, self._cookies.prepare())
        except OSError:
            os.close(fd)
            raise
        return fd

    def _mark(self, root: RootId, path: bytes) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            base = _Base(root, os.path.realpath(path), b"", os.fstatvfs(fd).f_fsid)
            self._put_bases({**self._bases, (root, b""): base})
            abi.mark_file_system(self._fd, self._mask, fd)
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)

    def _put_bases(self, bases: dict[tuple[RootId, bytes], _Base]) -> None:
        """Before the mark that belongs to them: an event that comes between the two would be of a folder that lies nowhere.

        Places are forgotten afterwards, for those that were found by the bases of before. The loop may be finding one in
        this very moment: it keeps what it finds in the dictionary that it began with, which nobody asks any more.
        """
        self._bases = bases
        self._places = {}

    def enter(self, root: RootId, path: bytes, fd: int) -> Entered:
        """Mark the file system of a folder that is mounted in the root; all others are marked with their root."""
        top = self._bases.get((root, b""))
        if top is None or os.fstat(fd).st_dev == self._devices.get(root) or self._fd < 0:
            return Entered()
        file_system = os.fstatvfs(fd).f_fsid
        above = [key for key in self._bases if key[0] == root and key[1] and paths.is_below(path, key[1])]
        if any(self._bases[key].file_system == file_system and key[1] != path for key in above):
            return Entered()  # a folder below the mount point
        with contextlib.suppress(OSError):  # a file system without handles: found by scans
            base = _Base(root, paths.join(top.path, path), path, file_system)
            is_new = self._bases.get((root, path)) != base
            self._put_bases({**self._bases, (root, path): base})  # equal ones too: places were found while it was away
            abi.mark_file_system(self._fd, self._mask, fd)
            return Entered(is_new=is_new)
        return Entered()

    # -- events (loop) -------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            buffer = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        for event in abi.parse(buffer):
            if event.mask & abi.Q_OVERFLOW:
                self._overflows += 1
                self._lost("the kernel's queue overflowed")
            elif not self._cookies.take(event.name):
                self._on_event(event)
        if self._hints:
            self._notify()

    def _on_event(self, event: abi.Event) -> None:
        key = (event.file_system, event.handle)
        remembered = self._places  # before the bases are read: see _put_bases
        places = remembered.get(key)
        if places is None:
            places, is_certain = self._find(event)
            if len(remembered) >= _MAX_REMEMBERED:
                remembered.clear()
            if is_certain:
                remembered[key] = places
        flags, is_new_dir = meaning(event.mask)
        for root, folder in places:
            path = folder if event.name == b"." else paths.join(folder, event.name)
            self._hints.put(Hint(root, path, is_new_dir, flags))
        if event.mask & abi.ONDIR and event.mask & _TREE_CHANGED:
            self._places = {}  # whatever lies below it has another place now, or none

    def _find(self, event: abi.Event) -> tuple[tuple[tuple[RootId, bytes], ...], bool]:
        """(where the directory of *event* lies in the roots now, whether that may be remembered).

        Nowhere: it is another's, or is gone (its parent tells). Where it cannot be told the whole root is in doubt.
        """
        found, is_certain = [], True
        for base in self._bases.values():
            if base.file_system != event.file_system:
                continue
            try:
                path = _path_of(base.path, event.handle)
            except OSError as error:
                is_certain = False
                if error.errno not in _NOT_THERE:
                    self._doubt(base.root, f"a folder cannot be found by its handle: {error.strerror}")
                continue
            if paths.is_below(path, base.path):
                found.append((base.root, paths.join(base.relative, path[len(base.path.rstrip(b"/")) + 1 :])))
        return tuple(found), is_certain

    def _lost(self, reason: str) -> None:
        log.warning("watch events lost, scanning", backend=self.name, reason=reason)
        self._cookies.lost()
        for root in self._devices:
            self._doubt(root, reason)

    def _doubt(self, root: RootId, reason: str) -> None:
        self._last_loss = (time.time_ns() // 1_000_000, f"{reason}: everything was compared once more")
        self._hints.put(Hint(root, b"", is_recursive=True, flags=hints.LOST | hints.DIR))


class _Coverage:
    def __init__(self, source: FanotifySource) -> None:
        self.enter = source.enter

    def leave(self, root: RootId, path: bytes) -> None:
        """Nothing to do."""


def missing_privileges() -> errors.Misconfigured:
    """What to say where fanotify was asked for and cannot be had."""
    return errors.Misconfigured(
        "fanotify needs the capabilities CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, and Linux 5.9",
        key="watch.backend",
        hint='run as a system service with AmbientCapabilities=CAP_SYS_ADMIN CAP_DAC_READ_SEARCH, or set watch.backend = "auto"',
    )


def _path_of(base: bytes, handle: bytes) -> bytes:
    """Absolute path of a directory by its handle, as seen through the mount at *base*. Raises OSError."""
    mount = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = abi.open_handle(mount, handle)
    finally:
        os.close(mount)
    try:
        return os.readlink(b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)
