"""Look at the disk: one entry, or one whole directory. Runs in a worker thread, in small slices.

In: a root and paths relative to it. Out: values. Follows no symbolic link below the root: every directory is opened
from its parent's descriptor with O_NOFOLLOW, so a path cannot lead out of the root, not even in a race.
No descriptor outlives a slice: an open one would keep a disk from being unmounted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Literal, Self

from msearchd.domain.asset import Root, StatFingerprint
from msearchd.watch import paths
from msearchd.watch.hints import Coverage, Entered, KeepsBooks, ManyEntered
from msearchd.watch.ignore import FolderRules, Rules
from msearchd.watch.inner_mounts import InnerMounts
from msearchd.watch.left import reason_to_leave, special_rule
from msearchd.watch.listing import Listing, Unchanged, if_unchanged, list_folder

_DIR_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ENTERED: Final = Entered()
_MAX_ENTERED: Final = 100_000  # 15 MB; beyond it each is entered by itself
_MAX_CHAIN: Final = 32  # descriptors of one slice; deeper folders are opened again from the root
#: The entry is not there. ELOOP: a symbolic link stands where a directory was.
GONE_ERRNOS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class RootIdentity:
    """Which directory stands at the root's path. Equal: the same directory of the same mounted file system."""

    device: int
    inode: int


class RootUnreadable(Exception):  # noqa: N818 - an outcome of a slice, turned into RootWent by the watcher
    """The root cannot be read as itself now: missing, another directory in its place, or its device fails."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one name. `fingerprint` for file and left; `reason` for left and excluded."""

    kind: Literal["file", "left", "dir", "gone", "excluded"]
    fingerprint: StatFingerprint | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FolderLook:
    """What stands at some names of one folder."""

    path: bytes
    device: int
    entries: dict[bytes, Entry]
    held: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class NotListed:
    """A directory that could not be listed. "gone": it is not there; "unreadable": keep what is known of it."""

    path: bytes
    kind: Literal["gone", "unreadable"]
    reason: str = ""


@dataclass(slots=True)
class RootContext:
    """A root as the scanning thread needs it."""

    root: Root
    rules: Rules
    coverage: Coverage
    max_file_bytes: int
    identity: RootIdentity | None = None
    mounts: InnerMounts = field(default_factory=InnerMounts)


class Walk:
    """A slice's view of one root. A context manager: closes its descriptors. Raises RootUnreadable on entry.

    *entered*: for a walk that reads every folder from its parent on: folders that were entered with their siblings, by their
    parent's descriptor, and not read yet. That is a third of the cost of one by one, and as safe: a folder that is replaced
    before it is read is told by its parent, which is watched already.
    """

    def __init__(self, context: RootContext, *, entered: set[bytes] | None = None) -> None:
        self._context = context
        self._entered = entered
        coverage = context.coverage
        can = entered is not None and isinstance(coverage, ManyEntered) and not context.mounts
        self._enter_children = coverage.enter_children if can and isinstance(coverage, ManyEntered) else None
        self._books = coverage if isinstance(coverage, KeepsBooks) else None
        self._root_id = context.root.id
        self._enter = context.coverage.enter
        self._chain: list[tuple[bytes, int]] = []  # (path, descriptor) from the root down

    def __enter__(self) -> Self:
        fd, identity = open_root(self._context.root.path)
        if self._context.identity is None:
            self._context.identity = identity
        elif identity != self._context.identity:
            os.close(fd)
            raise RootUnreadable("another folder stands in its place (unmounted, or replaced)")
        self._chain = [(b"", fd)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, fd in self._chain:
            os.close(fd)
        self._chain = []

    def look(self, folder: bytes, names: list[bytes]) -> FolderLook | NotListed:
        """Say what stands at each of *names* in *folder*. A folder that a rule leaves out is as good as gone."""
        try:
            if (rule := self._context.rules.check_path(folder, is_dir=True)) is not None:
                return NotListed(folder, "gone", rule.pattern)
            fd = self._open(folder)
            rules = self._context.rules.folder(folder)
            entries = {name: self._look_one(fd, rules, name) for name in names}
            return FolderLook(folder, os.fstat(fd).st_dev, entries, self._context.mounts.held_names(folder))
        except OSError as error:
            return _not_listed(folder, error)

    def read(self, path: bytes, *, expected: int = 0) -> Listing | Unchanged | NotListed:
        """Tell the source that *path* is entered, then list it. The caller knows that no rule leaves it out.

        *expected*: the signature it had when it was compared last.
        """
        try:
            fd = self._open(path)
            if self._entered and path in self._entered:
                self._entered.discard(path)
                entered = _ENTERED
            else:
                entered = self._enter(self._root_id, path, fd)
            if expected and entered.was is None:
                found = if_unchanged(path, fd, self._context.rules, expected)
                if found is not None:
                    if found.subdirs and self._enter_children is not None:
                        self._note_entered(path, fd, found.subdirs)
                    strangers = self._strangers(path, found.subdirs)
                    return found._replace(strangers=strangers) if strangers else found
            mounts = self._context.mounts
            held = mounts.held_names(path) if mounts else frozenset()
            listing = list_folder(
                path, fd, self._context.rules, max_file_bytes=self._context.max_file_bytes, entered=entered, held=held
            )
        except OSError as error:
            return _not_listed(path, error)
        strangers = [name for name in self._strangers(path, listing.subdirs) if name not in held]
        return replace(listing, strangers=strangers) if strangers else listing

    def _strangers(self, path: bytes, subdirs: Sequence[bytes]) -> Sequence[bytes]:
        return self._books.strangers(self._root_id, path, subdirs) if self._books is not None else ()

    def _note_entered(self, path: bytes, fd: int, names: Sequence[bytes]) -> None:
        if self._entered is None or self._enter_children is None or len(self._entered) > _MAX_ENTERED:
            return
        others = set(self._enter_children(self._root_id, path, fd, names))
        self._entered.update([paths.join(path, name) for name in names if name not in others])

    def read_whole(self, path: bytes) -> Listing | NotListed:
        """The same without an early end."""
        result = self.read(path)
        assert not isinstance(result, Unchanged)  # noqa: S101 - nothing was expected of it
        return result

    def stamp_only(self, path: bytes) -> os.stat_result | None:
        """Its lstat by its full path, without entering it; None if it cannot be had. Four times as fast as `stamp`.

        Links on the way may lead out of the root: then the folder that became a link changed too, and is looked at.
        """
        try:
            return os.lstat(paths.join(self._context.root.path, path))
        except OSError:
            return None

    def stamp(self, path: bytes) -> os.stat_result | NotListed:
        """Tell the source that *path* is entered, without listing it; its stat, taken afterwards."""
        try:
            fd = self._open(path)
            self._context.coverage.enter(self._context.root.id, path, fd)
            return os.fstat(fd)
        except OSError as error:
            return _not_listed(path, error)

    def is_there(self, path: bytes) -> bool:
        """True if anything stands at *path*, or that cannot be told."""
        folder, _, name = path.rpartition(b"/")
        try:
            os.stat(name, dir_fd=self._open(folder), follow_symlinks=False)
        except OSError as error:
            return error.errno not in GONE_ERRNOS
        return True

    # -- one entry -----------------------------------------------------------------------------------------------------

    def _look_one(self, fd: int, rules: FolderRules, name: bytes) -> Entry:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in GONE_ERRNOS:
                return Entry("gone")
            raise
        is_dir = stat.S_ISDIR(status.st_mode)
        rule = rules.check(os.fsdecode(name), is_dir=is_dir) or special_rule(status.st_mode)
        if rule is not None:
            return Entry("excluded", reason=rule.pattern)
        if is_dir:
            return Entry("dir")
        fingerprint, reason = self._judge(fd, name, status)
        return Entry("left" if reason else "file", fingerprint, reason)

    def _judge(self, fd: int, name: bytes | str, status: os.stat_result) -> tuple[StatFingerprint, str]:
        reason = reason_to_leave(fd, name, status, max_file_bytes=self._context.max_file_bytes)
        inode = 0 if reason else status.st_ino
        return StatFingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode), reason

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def _open(self, path: bytes) -> int:
        """A descriptor of directory *path*, through the chain of its parents. Raises OSError."""
        chain = self._chain
        at, fd = chain[-1]
        while at and path != at and not path.startswith(at + b"/"):
            os.close(fd)
            chain.pop()
            at, fd = chain[-1]
        if path == at:
            return fd
        mounts = self._context.mounts
        for name in path[len(at) + 1 if at else 0 :].split(b"/"):
            if len(chain) >= _MAX_CHAIN:
                os.close(chain.pop(1)[1])
            fd = os.open(name, _DIR_FLAGS, dir_fd=fd)
            at = at + b"/" + name if at else name
            if mounts:
                _check_mount(mounts, at, fd)
            chain.append((at, fd))
        return fd


def _check_mount(mounts: InnerMounts, path: bytes, fd: int) -> None:
    """Close *fd* and raise OSError where another folder than the mounted one stands."""
    status = os.fstat(fd)
    try:
        mounts.check(path, (status.st_dev, status.st_ino))
    except OSError:
        os.close(fd)
        raise


def open_root(path: bytes) -> tuple[int, RootIdentity]:
    """Open a root (a symbolic link to a folder is fine here). Raises RootUnreadable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is not there" if error.errno in GONE_ERRNOS else f"it cannot be opened: {error.strerror}"
        raise RootUnreadable(reason) from error
    status = os.fstat(fd)
    return fd, RootIdentity(status.st_dev, status.st_ino)


def _not_listed(path: bytes, error: OSError) -> NotListed:
    if error.errno in GONE_ERRNOS:
        return NotListed(path, "gone")
    name = errno.errorcode.get(error.errno or 0, "error")
    return NotListed(path, "unreadable", f"{name}: {error.strerror}")
