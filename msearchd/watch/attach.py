"""Enter the folders that are known already: their source watches them from now on, and those that changed are named.

In: rows of what is known, parents first. Out: folders that must be listed. Runs in the scanning thread. First the watch,
then the look: what changes afterwards is an event, what changed before shows in the times of the folder. A folder that was
replaced between the two is told by its parent, which is watched already; if not, the walk of the whole root that follows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msearchd.domain.asset import KnownDir
from msearchd.watch import paths
from msearchd.watch.comparer import is_stamp_safe, stamp_of
from msearchd.watch.disk import NotListed, RootContext, Walk
from msearchd.watch.hints import ManyEntered

_Rows = dict[bytes, KnownDir]


def attach(context: RootContext, batch: list[tuple[bytes, KnownDir]]) -> list[bytes]:
    """Those folders of *batch* that must be listed; all others are watched and as they were.

    A folder that is gone or newly left out is its parent's change. Raises RootUnreadable.
    """
    changed: dict[bytes, None] = {}
    singles: _Rows = {}
    by_parent: dict[bytes, _Rows] = {}
    mounts = context.mounts or None
    for path, known in batch:
        if mounts is not None and mounts.is_away(path):
            continue  # known, and kept as it is
        if not path:
            singles[path] = known
        else:
            parent, _, name = path.rpartition(b"/")
            by_parent.setdefault(parent, {})[name] = known
    with _Walk(context) as walk:
        _enter_one_by_one(walk, singles, changed)
        for parent, rows in by_parent.items():
            rules = context.rules.folder(parent)
            kept = {name: row for name, row in rows.items() if rules.check(os.fsdecode(name), is_dir=True) is None}
            if len(kept) < len(rows):
                changed[parent] = None
            walk.enter_children(parent, kept, changed)
    return list(changed)


class _Walk(Walk):
    def enter_children(self, parent: bytes, rows: _Rows, changed: dict[bytes, None]) -> None:
        """Watch directories of one folder by their names in it, then look at their times: two system calls each."""
        coverage = self._context.coverage
        near, others = dict(rows), list(rows)
        if isinstance(coverage, ManyEntered) and not self._context.mounts:
            try:
                fd = self._open(parent)
            except OSError:
                changed[parent] = None
                return
            others = list(coverage.enter_children(self._context.root.id, parent, fd, others))
            for name in others:
                del near[name]
            look = os.stat
            for name, known in near.items():
                try:
                    seen = look(name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    changed[parent] = None
                    continue
                if (
                    seen.st_mtime_ns != known.mtime_ns
                    or seen.st_ctime_ns != known.ctime_ns
                    or seen.st_ino != known.inode
                    or not is_stamp_safe(known)
                ):
                    changed[paths.join(parent, name)] = None
        _enter_one_by_one(self, {paths.join(parent, name): rows[name] for name in others}, changed)


def _enter_one_by_one(walk: Walk, rows: Mapping[bytes, KnownDir], changed: dict[bytes, None]) -> None:
    for path, known in rows.items():
        seen = walk.stamp(path)
        if isinstance(seen, NotListed):
            changed[paths.parent(path)] = None
        elif stamp_of(seen) != (known.inode, known.mtime_ns, known.ctime_ns) or not is_stamp_safe(known):
            changed[path] = None
