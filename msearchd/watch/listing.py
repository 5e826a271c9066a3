"""One directory as a whole: what is in it, what rules leave out, and one number that stands for all of it.

In: an open directory, the rules, the number of the last comparison. Out: a Listing. Equal numbers end the work early: then
neither a rule nor a file is looked at, only names and stats are read, which is most of what a bare walk costs.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from msearchd.domain.asset import StatFingerprint
from msearchd.watch.hints import Entered
from msearchd.watch.ignore import CONTROL_NAMES, FolderRules, Rules, Stamp
from msearchd.watch.left import reason_to_leave

#: An entry: name, size, mtime_ns, ctime_ns, inode.
Row = tuple[str, int, int, int, int]
_TRIES: Final = 3
_SPAN: Final = 1 << 64
_HALF: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole directory. Excluded entries are not in it; `excluded` counts them."""

    path: bytes
    inode: int
    mtime_ns: int
    ctime_ns: int
    device: int
    rows: list[Row]  # empty if `is_unchanged`
    left: dict[bytes, str]  # name -> reason; its row is there too, with inode 0
    subdirs: list[bytes]
    signature: int
    entered: Entered = field(default_factory=Entered)
    excluded: int = 0
    held: frozenset[bytes] = frozenset()  # subdirectories whose disk is away: missing, they are not deleted
    file_count: int = 0
    strangers: Sequence[bytes] = ()  # names that the source has in its books as directories, and that are none here

    def files(self) -> dict[bytes, StatFingerprint]:
        """Files by name. Made on demand: of an unchanged directory nobody asks."""
        return {os.fsencode(row[0]): StatFingerprint(*row[1:]) for row in self.rows}


class Unchanged(NamedTuple):
    """A directory whose signature is the expected one: nothing but names and stats was looked at.

    `subdirs`: those that no rule leaves out; `file_count` counts every other entry; `strangers` as of a Listing.
    (A tuple: made of nearly every directory.)
    """

    path: bytes
    inode: int
    mtime_ns: int
    ctime_ns: int
    signature: int
    subdirs: list[bytes]
    file_count: int
    has_entries: bool
    strangers: Sequence[bytes] = ()


def list_folder(
    path: bytes,
    fd: int,
    rules: Rules,
    *,
    max_file_bytes: int,
    entered: Entered,
    held: frozenset[bytes],
) -> Listing:
    """List the directory open as *fd*. A changed ignore file in it counts at once. Raises OSError."""
    for _ in range(_TRIES):
        listing, stamps = _list_once(path, fd, rules.folder(path), max_file_bytes, entered, held)
        if rules.is_current(path, stamps):
            break
        rules.forget(path)  # an ignore file here is new, changed or gone
    return listing


def signature(names: Sequence[str], numbers: list[int], subdirs: Sequence[str], salt: bytes = b"") -> int:
    """Signed 64-bit hash of a directory's entries, never 0 (XXH3). *salt*: what else must be equal, the rules.

    *numbers*: size, mtime_ns, ctime_ns and inode of each of *names*, in the order in which the directory gives them. That
    is the same while nothing in it changes; where a file system says otherwise, its folders are compared name by name.
    Equal signatures: nothing to compare. No defence against somebody who forges one: he would hide his own files.
    """
    # Version 2 of marshal: later ones write an object differently when something else holds it too. A name has no NUL.
    text = "\0".join([*names, "", *subdirs]).encode("utf-8", "surrogateescape")
    value = xxh3_64_intdigest(marshal.dumps((salt, text, numbers), 2))
    return (value - _SPAN if value >= _HALF else value) or 1


def if_unchanged(path: bytes, fd: int, rules: Rules, expected: int) -> Unchanged | None:
    """What there is to say of the directory open as *fd* if its signature is *expected*, that of the last comparison.

    Excluded entries are part of it: no rule is asked for a file. None: list it as a whole. Raises OSError.
    """
    status = os.fstat(fd)
    names: list[str] = []
    numbers: list[int] = []
    subdirs: list[str] = []
    add = names.append
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                subdirs.append(entry.name)
                continue
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
            add(entry.name)
            numbers += (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
    # First as nearly every folder is, without ignore files. One that has some never has the number of one that has none.
    if signature(names, numbers, subdirs, rules.salt(path, has_ignore_files=False)) != expected and (
        (CONTROL_NAMES.isdisjoint(names) and CONTROL_NAMES.isdisjoint(subdirs))
        or signature(names, numbers, subdirs, rules.salt(path)) != expected
    ):
        return None
    kept: list[bytes] = []
    if subdirs:
        check = rules.folder(path).check
        kept = [os.fsencode(name) for name in subdirs if check(name, is_dir=True) is None]
    return Unchanged(
        path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, expected, kept, len(names), bool(names or subdirs)
    )


def _list_once(
    path: bytes, fd: int, rules: FolderRules, max_file_bytes: int, entered: Entered, held: frozenset[bytes]
) -> tuple[Listing, list[Stamp]]:
    # Before the entries: a change while we read leaves an older stamp behind, and phase 1 looks again.
    status = os.fstat(fd)
    stamps: list[Stamp] = []
    rows: list[Row] = []
    names: list[str] = []
    numbers: list[int] = []
    left: dict[bytes, str] = {}
    subdirs: list[str] = []
    kept: list[bytes] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                subdirs.append(name)
                if name in CONTROL_NAMES:
                    stamps += _stamp_of(entry)
                if rules.check(name, is_dir=True) is None:
                    kept.append(os.fsencode(name))
                continue
            try:
                seen = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it went while we read; its hint is on the way
            row = (name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
            names.append(name)
            numbers += row[1:]
            if name in CONTROL_NAMES:
                stamps.append((name, seen.st_size, seen.st_mtime_ns, seen.st_ino))
            if rules.check(name, is_dir=False) is not None or not stat.S_ISREG(seen.st_mode):
                continue
            reason = reason_to_leave(fd, name, seen, max_file_bytes=max_file_bytes)
            if reason:
                left[os.fsencode(name)] = reason
                row = (*row[:4], 0)
            rows.append(row)
    excluded = len(subdirs) - len(kept) + len(names) - len(rows)
    # What is left alone for a reason is judged anew each time: not every reason shows in a stat.
    salt = rules.salt if not left else hashlib.blake2b(repr(sorted(left.items())).encode(), key=rules.salt).digest()
    listing = Listing(
        path, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, rows, left, kept,
        signature(names, numbers, subdirs, salt), entered, excluded, held, file_count=len(rows),
    )  # fmt: skip
    return listing, stamps


def _stamp_of(entry: os.DirEntry[str]) -> list[Stamp]:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return []
    return [(entry.name, status.st_size, status.st_mtime_ns, status.st_ino)]
