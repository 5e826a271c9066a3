"""What a look at the disk means: compare it with what is known, pair what vanished with what appeared, put in order.

In: listings and looks (disk), rows (KnownTree). Out: changes in the order in which they may be applied. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import paths
from msearchd.watch.changes import (
    Change,
    DirScanned,
    FileGone,
    FileLeft,
    FileMoved,
    FileSeen,
    FileTouched,
    TreeGone,
    TreeMoved,
)
from msearchd.watch.ports import KnownDir

Place = tuple[RootId, bytes]
MoveKey = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Appeared:
    """A file whose bytes are new to us, or new at this place. `device` tells apart equal inode numbers of two disks."""

    fingerprint: StatFingerprint
    device: int
    is_live: bool
    left: str = ""  # why its bytes are left alone


@dataclass(slots=True)
class Found:
    """What one unit of work found, collected folder by folder; `in_order` makes changes of it."""

    resets: list[DirScanned] = field(default_factory=list)
    #: Names that turned from file to directory or back: gone before what is new there.
    first_gone: list[FileGone | TreeGone] = field(default_factory=list)
    tree_moves: list[TreeMoved] = field(default_factory=list)
    appeared: dict[Place, Appeared] = field(default_factory=dict)
    touched: list[FileTouched] = field(default_factory=list)
    vanished: dict[Place, tuple[StatFingerprint, int]] = field(default_factory=dict)  # with its device
    gone_dirs: dict[Place, KnownDir | None] = field(default_factory=dict)
    scanned: list[DirScanned] = field(default_factory=list)
    #: Places where no directory stands any more: their sources may stop watching them.
    left: list[Place] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Diff:
    """One folder: the disk against what is known. Names only."""

    appeared: tuple[bytes, ...] = ()  # new, or other bytes
    touched: tuple[bytes, ...] = ()  # other ctime alone
    vanished: tuple[bytes, ...] = ()
    gone_dirs: tuple[bytes, ...] = ()
    new_dirs: tuple[bytes, ...] = ()
    file_to_dir: tuple[bytes, ...] = ()
    dir_to_file: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if the disk is as we know it."""
        return not (
            self.appeared or self.touched or self.vanished or self.gone_dirs or self.new_dirs or self.file_to_dir
            or self.dir_to_file
        )  # fmt: skip


def compare(
    files: Mapping[bytes, StatFingerprint],
    subdirs: Iterable[bytes],
    known_files: Mapping[bytes, StatFingerprint],
    known_subdirs: Iterable[bytes],
) -> Diff:
    """Compare one folder's children. All four speak of the same names."""
    now_dirs, known_dirs = set(subdirs), set(known_subdirs)
    appeared, touched = [], []
    for name, fingerprint in files.items():
        known = known_files.get(name)
        if known == fingerprint:
            continue
        if known is not None and known.same_bytes(fingerprint) and fingerprint.inode:
            touched.append(name)
        else:
            appeared.append(name)
    vanished = [name for name in known_files if name not in files]
    return Diff(
        appeared=tuple(appeared),
        touched=tuple(touched),
        vanished=tuple(name for name in vanished if name not in now_dirs),
        gone_dirs=tuple(name for name in known_dirs if name not in now_dirs and name not in files),
        new_dirs=tuple(name for name in now_dirs if name not in known_dirs),
        file_to_dir=tuple(name for name in vanished if name in now_dirs),
        dir_to_file=tuple(name for name in known_dirs if name in files),
    )


def move_key(fingerprint: StatFingerprint, device: int) -> MoveKey | None:
    """What a rename keeps. The inode alone proves nothing: ext4 gives a freed number to the next file at once."""
    if not fingerprint.inode:
        return None
    return (device, fingerprint.inode, fingerprint.size, fingerprint.mtime_ns)


def is_same_tree(known: KnownDir, *, inode: int, mtime_ns: int, signature: int) -> bool:
    """True if the directory that vanished there is the one that appeared here: same inode, and same stamp or children.

    Only its own level is proven; whoever moves the tree compares all of it afterwards.
    """
    return known.inode == inode and (known.mtime_ns == mtime_ns or (known.signature == signature and signature != 0))


def may_move(old: Place, new: Place) -> bool:
    """False where one place lies in the other: then the names between them changed too, and only a comparison tells."""
    return old[0] != new[0] or not (paths.is_below(old[1], new[1]) or paths.is_below(new[1], old[1]))


def pair_moves(found: Found) -> list[FileMoved]:
    """Take the files that vanished at one place and appeared at another out of *found*."""
    if not found.vanished or not found.appeared:
        return []
    places: dict[MoveKey, list[Place]] = {}
    for place, (fingerprint, device) in found.vanished.items():
        if (key := move_key(fingerprint, device)) is not None:
            places.setdefault(key, []).append(place)
    moves = []
    for new, appeared in list(found.appeared.items()):
        key = move_key(appeared.fingerprint, appeared.device)
        if key is None or appeared.left or not places.get(key):
            continue
        old = places[key].pop()
        del found.vanished[old], found.appeared[new]
        moves.append(FileMoved(old[0], old[1], new[0], new[1], appeared.fingerprint))
    return moves


def in_order(found: Found, *, extra_moves: Iterable[FileMoved] = ()) -> list[Change]:
    """Every change of *found*, in an order that is right at each step.

    Doubt first (a crash halfway leaves "compare again", not "all is well"), then room for what moves, moves, new files,
    what is gone (after the moves took theirs out), and last "compared as a whole".
    """
    moves = [*extra_moves, *pair_moves(found)]
    changes: list[Change] = [*found.resets, *_tree_moves(found), *moves, *found.touched]
    for (root, path), file in found.appeared.items():
        if file.left:
            changes.append(FileLeft(root, path, file.fingerprint, file.left))
        else:
            changes.append(FileSeen(root, path, file.fingerprint, file.is_live))
    changes += (FileGone(*place) for place in found.vanished)
    changes += (TreeGone(*place) for place in outermost(found.gone_dirs))
    changes += (stamp for stamp in found.scanned if not _is_overtaken(stamp, found.tree_moves))
    return changes


def _tree_moves(found: Found) -> Iterator[Change]:
    """What made room, and the moves, one after the other: each has its place emptied just before it.

    A folder that became a file is emptied after them: it may have moved, or something out of it, and takes what is known
    of it along. The books of the watches follow the same order; another one would leave watches of folders unknown here.
    """
    yield from (g for g in found.first_gone if isinstance(g, FileGone) and not _goes_along(g, found.tree_moves))
    for move in found.tree_moves:
        yield TreeGone(move.new_root, move.new)  # whatever was known there; usually nothing
        yield move
    for gone in found.first_gone:
        if isinstance(gone, TreeGone) and not any(
            move.new_root == gone.root and paths.is_below(move.new, gone.path) for move in found.tree_moves
        ):
            yield gone


def _goes_along(gone: FileGone, moves: Iterable[TreeMoved]) -> bool:
    """True if the file is in a folder that moved: what stands under its old name now was compared with another's files.

    Not if it has to make room for a move.
    """
    return any(move.root == gone.root and paths.is_below(gone.path, move.old) for move in moves) and not any(
        move.new_root == gone.root and paths.is_below(move.new, gone.path) for move in moves
    )


def _is_overtaken(stamp: DirScanned, moves: Iterable[TreeMoved]) -> bool:
    """True if the folder was compared with what a move of the same unit takes away, or brings, under its name."""
    return any(
        (move.root == stamp.root and paths.is_below(stamp.path, move.old))
        or (move.new_root == stamp.root and paths.is_below(stamp.path, move.new))
        for move in moves
    )


def outermost(places: Iterable[Place]) -> list[Place]:
    """*places* without those that lie below another of them."""
    out: list[Place] = []
    for place in sorted(places, key=lambda place: (place[0], place[1].replace(b"/", b"\0"))):  # a before a/b before a-b
        if not out or out[-1][0] != place[0] or not paths.is_below(place[1], out[-1][1]):
            out.append(place)
    return out


def is_at_rest(
    fingerprint: StatFingerprint, *, now_ns: int, fresh_s: float, looked: StatFingerprint | None = None
) -> bool:
    """False while a file may still be written: its ctime is younger than *fresh_s* and no earlier look saw the same.

    The ctime, because tar and cp -p set the mtime back. A ctime in the future (a clock stepped back) proves nothing.
    """
    if looked is not None and (looked.size, looked.mtime_ns) == (fingerprint.size, fingerprint.mtime_ns):
        return True
    age_s = (now_ns - fingerprint.ctime_ns) / 1e9
    return not 0 <= age_s < fresh_s


def group_by_folder(names: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Full relative paths -> names by folder."""
    grouped: dict[bytes, list[bytes]] = {}
    for path in names:
        grouped.setdefault(paths.parent(path), []).append(paths.name_of(path))
    return grouped
