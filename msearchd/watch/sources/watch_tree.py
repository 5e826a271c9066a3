"""The watched directories: a directory IS its watch descriptor, its place is only where it was last seen.

In: "this open directory stands at that path" (scanning thread), descriptors of events (loop). Out: paths, and "this one
was there before". The kernel gives one descriptor per inode for as long as it is watched, so identity needs no inode
numbers, which ext4 hands out again at once. The tree mirrors what was compared, never what events promise: a tree moved
about by unread events diverged in 21 of 30 random runs.
Thread-safe: every method takes the lock; adding a watch and entering it in the books is one step, so that no event
ever speaks of an unknown watch that is not ours to forget.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from msearchd.domain.asset import RootId
from msearchd.watch import paths

Place = tuple[RootId, bytes]
#: Directories entered under one hold of the lock: half a millisecond in which the loop may have to wait.
_AT_ONCE: Final = 64


class Node:
    """A directory: 0.25 KiB. `wd` None: known, not watched. `changed_s`: UTC seconds of its last event; 0: none yet."""

    __slots__ = ("changed_s", "children", "name", "parent", "root", "wd")

    def __init__(self, root: RootId, name: bytes, parent: Node | None) -> None:
        self.root = root
        self.name = name
        self.parent = parent
        self.wd: int | None = None
        self.changed_s = 0.0
        self.children: dict[bytes, Node] | None = None

    def path(self) -> bytes:
        """Where it was last seen, relative to its root."""
        parts = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return b"/".join(reversed(parts))

    def walk(self) -> Iterator[Node]:
        """Itself and all below."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            if node.children:
                stack += node.children.values()


class WatchTree:
    """See the module. `unwatch` is called with each descriptor that is not needed any more."""

    def __init__(self, unwatch: Callable[[int], None]) -> None:
        self.lock = threading.RLock()
        self._unwatch = unwatch
        self._tops: dict[RootId, Node] = {}
        self._by_wd: dict[int, Node] = {}
        #: Nodes without a watch, for the sweep.
        self.unwatched: set[Node] = set()
        #: Those of them that stand at a second place too (bind mounts) and are watched there: no limit's fault.
        self.elsewhere: set[Node] = set()
        #: The highest descriptor ever entered. The kernel counts up: an event of a higher one speaks of nothing we know.
        self.highest_wd = 0

    @property
    def watched_count(self) -> int:
        """Directories with a watch."""
        return len(self._by_wd)

    def add_root(self, root: RootId) -> None:
        """Begin a tree."""
        with self.lock:
            self._tops.setdefault(root, Node(root, b"", None))

    def remove_root(self, root: RootId) -> None:
        """Drop a tree with all its watches."""
        with self.lock:
            top = self._tops.pop(root, None)
            if top is not None:
                self._forget(top)

    def place_of(self, wd: int, *, now_s: float = 0.0) -> Place | None:
        """Where the directory of *wd* was last seen; None if it is not ours (any more). *now_s*: it changed (UTC)."""
        with self.lock:
            node = self._by_wd.get(wd)
            if node is None:
                return None
            node.changed_s = now_s or node.changed_s
            return (node.root, node.path())

    def watched(self) -> list[Node]:
        """Every directory with a watch, but for the tops of roots: those keep theirs."""
        with self.lock:
            return [node for node in self._by_wd.values() if node.parent is not None]

    def unwatched_nodes(self) -> list[Node]:
        """Every directory without."""
        with self.lock:
            return list(self.unwatched)

    def give_up(self, node: Node) -> bool:
        """End the watch of a directory that stays in the books; False if it has none (any more)."""
        with self.lock:
            if node.wd is None or node.parent is None:
                return False
            self._set_wd(node, None)
            return True

    def paths_of(self, root: RootId) -> list[tuple[bytes, int | None]]:
        """All of a root, for tests and status."""
        with self.lock:
            top = self._tops.get(root)
            return [(node.path(), node.wd) for node in top.walk()] if top is not None else []

    def put(
        self, place: Place, watch: Callable[[], int | None], *, is_elsewhere: Callable[[Place], bool]
    ) -> tuple[bool, Place | None]:
        """Enter the directory that `watch()` has just watched at *place*: (is new there, where it was before).

        *is_elsewhere* says whether the same directory still stands at another place too (a bind mount): then this one
        stays without a watch of its own.
        """
        with self.lock:
            if place[0] not in self._tops:
                return False, None
            wd = watch()
            here = self._find(*place)
            known = self._by_wd.get(wd) if wd is not None else None
            if wd is not None and known is None:
                self._put_new(place, wd)
                return True, None
            if known is not None and known is not here:
                return self._put_moved(known, place, watch, is_elsewhere=is_elsewhere)
            if known is not None:
                return False, None
            if here is not None and here.parent is not None and here.wd is not None:
                self._drop_node(here)  # a watch that is there is never refused: this is another directory
                here = None
            self._set_wd(self._make(*place), None)
            return here is None, None

    def put_children(self, folder: Place, names: Sequence[bytes], watch: Callable[[bytes], int | None]) -> list[bytes]:
        """Enter directories of *folder* that are not in the books, or are at this very place. `watch(name)` watches one.

        Returned: names that it could not watch, and such as were known elsewhere; those are for `put`.
        """
        others: list[bytes] = []
        for start in range(0, len(names), _AT_ONCE):
            with self.lock:
                if folder[0] not in self._tops:
                    return [*others, *names[start:]]
                others += self._put_some(self._make(*folder), names[start : start + _AT_ONCE], watch)
        return others

    def _put_some(self, parent: Node, names: Sequence[bytes], watch: Callable[[bytes], int | None]) -> list[bytes]:
        others: list[bytes] = []
        by_wd, root = self._by_wd, parent.root
        children = {} if parent.children is None else parent.children
        for name in names:
            try:
                wd = watch(name)
            except OSError:
                wd = None  # whoever opens it is told why
            known = by_wd.get(wd) if wd is not None else None
            if wd is None or known is not None:
                if known is None or known is not children.get(name):
                    others.append(name)
                continue
            if name in children:  # another directory stood here
                parent.children = children
                self._put_new((root, paths.join(parent.path(), name)), wd)
                children = parent.children or {}
                continue
            node = children[name] = by_wd[wd] = Node(root, name, parent)
            node.wd = wd
            self.highest_wd = max(self.highest_wd, wd)
        parent.children = children or None
        return others

    def _put_moved(
        self, node: Node, place: Place, watch: Callable[[], int | None], *, is_elsewhere: Callable[[Place], bool]
    ) -> tuple[bool, Place | None]:
        was = (node.root, node.path())
        if is_elsewhere(was):
            is_new = self._find(*place) is None
            here = self._make(*place)
            self._set_wd(here, None)
            self.elsewhere.add(here)
            return is_new, None
        if _is_above(node, self._deepest(*place)):
            self._drop_node(node)  # the books are older than two renames: begin anew here
            if (fresh := watch()) is not None:
                self._put_new(place, fresh)
            return True, None
        self._relink(node, *place)
        return True, was

    def strangers(self, root: RootId, folder: bytes, subdirs: Sequence[bytes]) -> list[bytes]:
        """Names in *folder* that are in the books, watched or not, and are none of *subdirs*."""
        with self.lock:
            node = self._find(root, folder)
            if node is None or not node.children:
                return []
            return list(node.children.keys() - set(subdirs))

    def drop(self, root: RootId, path: bytes) -> None:
        """Forget *path* and all below it."""
        with self.lock:
            node = self._find(root, path)
            if node is not None and node.parent is not None:
                self._drop_node(node)

    def ignored(self, wd: int) -> Place | None:
        """The kernel ended this watch by itself (deleted, unmounted): its place, or None if we ended it."""
        with self.lock:
            node = self._by_wd.pop(wd, None)
            if node is None:
                return None
            node.wd = None
            place = (node.root, node.path())
            if node.parent is not None:
                self._drop_node(node)
            return place

    # -- under the lock ------------------------------------------------------------------------------------------------

    def _put_new(self, place: Place, wd: int) -> None:
        here = self._find(*place)
        if here is not None and here.parent is not None and here.wd is not None:
            self._drop_node(here)  # another directory stood here; should it turn up elsewhere, it is found as new
        self._set_wd(self._make(*place), wd)

    def _relink(self, node: Node, root: RootId, path: bytes) -> None:
        self._detach(node)  # first: it may have been a child of what stands at its new place
        displaced = self._find(root, path)
        if displaced is not None:
            self._drop_node(displaced)
        parent = self._make(root, paths.parent(path))
        node.name, node.parent = paths.name_of(path), parent
        if parent.children is None:
            parent.children = {}
        parent.children[node.name] = node
        if node.root != root:
            for below in node.walk():
                below.root = root

    def _make(self, root: RootId, path: bytes) -> Node:
        node = self._tops[root]
        for name in path.split(b"/") if path else []:
            if node.children is None:
                node.children = {}
            child = node.children.get(name)
            if child is None:
                child = node.children[name] = Node(root, name, node)
                self.unwatched.add(child)
            node = child
        return node

    def _find(self, root: RootId, path: bytes) -> Node | None:
        node = self._tops.get(root)
        for name in path.split(b"/") if path else []:
            if node is None or node.children is None:
                return None
            node = node.children.get(name)
        return node

    def _deepest(self, root: RootId, path: bytes) -> Node:
        node = self._tops[root]
        for name in path.split(b"/") if path else []:
            child = node.children.get(name) if node.children else None
            if child is None:
                break
            node = child
        return node

    def _set_wd(self, node: Node, wd: int | None) -> None:
        if node.wd is not None and node.wd != wd:
            self._by_wd.pop(node.wd, None)
            self._unwatch(node.wd)
        node.wd = wd
        self.elsewhere.discard(node)
        if wd is None:
            self.unwatched.add(node)
        else:
            self._by_wd[wd] = node
            self.highest_wd = max(self.highest_wd, wd)
            self.unwatched.discard(node)

    def _drop_node(self, node: Node) -> None:
        self._detach(node)
        self._forget(node)

    def _forget(self, top: Node) -> None:
        for node in top.walk():
            self.unwatched.discard(node)
            self.elsewhere.discard(node)
            if node.wd is not None:
                self._by_wd.pop(node.wd, None)
                self._unwatch(node.wd)
                node.wd = None

    def _detach(self, node: Node) -> None:
        parent = node.parent
        if parent is not None and parent.children is not None and parent.children.get(node.name) is node:
            del parent.children[node.name]
            if not parent.children:
                parent.children = None


def _is_above(node: Node, other: Node) -> bool:
    at: Node | None = other
    while at is not None:
        if at is node:
            return True
        at = at.parent
    return False
