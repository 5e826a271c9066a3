"""The native source's parts that need no kernel: event bytes, the drain's backlog, and the tree of watches."""

import os

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from msearchd.domain.asset import RootId
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources.drain import Backlog
from msearchd.watch.sources.watch_tree import WatchTree

R = RootId(1)


def event(wd, mask, name=b""):
    padded = name + b"\0" * (16 - len(name) % 16) if name else b""
    return abi.HEADER.pack(wd, mask, 0, len(padded)) + padded


EVENTS = st.lists(st.tuples(st.integers(-1, 9), st.integers(1, 2**31), st.binary(min_size=0, max_size=40).map(
    lambda b: b.replace(b"\0", b"x"))), max_size=20)  # fmt: skip


@given(EVENTS, st.integers(0, 2000))
def test_events_survive_any_cut_of_the_stream(events, cut):
    stream = b"".join(event(*e) for e in events)
    cut = min(cut, len(stream))
    whole = abi.whole_bytes(stream[:cut])
    assert whole <= cut
    again = [*abi.parse(stream[:whole]), *abi.parse(stream[whole:])]
    assert again == events


def test_a_full_backlog_gives_way_to_one_overflow_and_keeps_the_stream_whole():
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        os.set_blocking(reading, False)
        backlog = Backlog(max_bytes=300_000)
        first = event(1, abi.CREATE, b"a" * 30) * 3000  # larger than the pipe: it stays half written
        backlog.put(first)
        backlog.write_to(writing)
        for n in range(50):
            backlog.put(event(2, abi.CREATE, b"%d" % n) * 500)
        got = b""
        while backlog:
            got += os.read(reading, 1 << 20)
            backlog.write_to(writing)
        got += os.read(reading, 1 << 20)
    finally:
        os.close(reading)
        os.close(writing)
    seen = list(abi.parse(got))
    assert len(b"".join(event(*e) for e in seen)) == len(got)  # nothing half
    assert seen[:3000] == [(1, abi.CREATE, b"a" * 30)] * 3000
    assert (-1, abi.Q_OVERFLOW, b"") in seen


class Kernel:
    """One descriptor per directory for as long as it is watched, as inotify does."""

    def __init__(self):
        self.wd_of, self.next_wd, self.is_full = {}, 1, False

    def watch(self, inode):
        if inode not in self.wd_of:
            if self.is_full:
                return None
            self.wd_of[inode] = self.next_wd
            self.next_wd += 1
        return self.wd_of[inode]

    def unwatch(self, wd):
        self.wd_of = {i: w for i, w in self.wd_of.items() if w != wd}


def put(tree, kernel, path, inode, *, elsewhere=()):
    return tree.put((R, path), lambda: kernel.watch(inode), is_elsewhere=lambda place: place[1] in elsewhere)


@pytest.fixture
def books():
    kernel = Kernel()
    tree = WatchTree(kernel.unwatch)
    tree.add_root(R)
    put(tree, kernel, b"", "top")
    return tree, kernel


def test_entering_a_directory_twice_is_entering_it_once(books):
    tree, kernel = books
    assert put(tree, kernel, b"a", "A") == (True, None)
    assert put(tree, kernel, b"a", "A") == (False, None)
    assert tree.place_of(kernel.wd_of["A"]) == (R, b"a")


def test_a_renamed_tree_is_known_by_its_watch_and_brings_its_children(books):
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    put(tree, kernel, b"a/b", "B")
    assert put(tree, kernel, b"c", "A") == (True, (R, b"a"))
    assert tree.place_of(kernel.wd_of["B"]) == (R, b"c/b")


def test_a_child_that_takes_its_parents_place_stays_watched(books):
    """mv a/b x; rm -r a; mv x a."""
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    put(tree, kernel, b"a/b", "B")
    assert put(tree, kernel, b"a", "B") == (True, (R, b"a/b"))
    assert tree.place_of(kernel.wd_of["B"]) == (R, b"a")
    assert "A" not in kernel.wd_of


def test_a_directory_replaced_by_another_loses_its_watch(books):
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    put(tree, kernel, b"a/x", "X")
    put(tree, kernel, b"a", "Other")
    assert set(kernel.wd_of) == {"top", "Other"}


def test_a_bind_mount_is_listed_but_keeps_no_second_place(books):
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    assert put(tree, kernel, b"mnt", "A", elsewhere={b"a"}) == (True, None)
    assert tree.place_of(kernel.wd_of["A"]) == (R, b"a")
    assert len(tree.unwatched) == 1


def test_books_older_than_two_renames_begin_anew(books):
    """mv x t; mkdir x; mv t x/y, and x/y is entered first: the old x cannot be its own child."""
    tree, kernel = books
    put(tree, kernel, b"x", "X")
    assert put(tree, kernel, b"x/y", "X") == (True, None)
    assert tree.place_of(kernel.wd_of["X"]) == (R, b"x/y")
    put(tree, kernel, b"x", "new")
    put(tree, kernel, b"x/y", "X")
    assert tree.place_of(kernel.wd_of["X"]) == (R, b"x/y")


def test_at_the_limit_a_directory_stays_in_the_books_without_a_watch(books):
    tree, kernel = books
    kernel.is_full = True
    assert put(tree, kernel, b"a", "A") == (True, None)
    assert len(tree.unwatched) == 1
    kernel.is_full = False
    put(tree, kernel, b"a", "A")
    assert not tree.unwatched


def test_at_the_limit_another_directory_at_a_watched_place_is_new_and_the_old_ones_watches_end(books):
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    put(tree, kernel, b"a/b", "B")
    kernel.is_full = True
    assert put(tree, kernel, b"a", "another") == (True, None)
    assert put(tree, kernel, b"a", "another") == (False, None)
    assert set(kernel.wd_of) == {"top"}, "nothing below the old one is taken for something below the new one"


def test_the_end_of_a_watch_forgets_all_below(books):
    tree, kernel = books
    put(tree, kernel, b"a", "A")
    put(tree, kernel, b"a/b", "B")
    assert tree.ignored(kernel.wd_of["A"]) == (R, b"a")
    assert tree.place_of(kernel.wd_of.get("B", 99)) is None
    assert tree.ignored(77) is None


class BooksAndDisk(RuleBasedStateMachine):
    """Directories are moved about; some are entered, some left, in any order. P5: the books stay one to one."""

    def __init__(self):
        super().__init__()
        self.kernel = Kernel()
        self.tree = WatchTree(self.kernel.unwatch)
        self.tree.add_root(R)
        self.disk = {b"": "top"}
        self.count = 0
        put(self.tree, self.kernel, b"", "top")

    def free(self, data, base):
        name = data.draw(st.sampled_from([b"a", b"b", b"c"]))
        return base + b"/" + name if base else name

    @rule(data=st.data())
    def make(self, data):
        path = self.free(data, data.draw(st.sampled_from(sorted(self.disk))))
        if path not in self.disk:
            self.count += 1
            self.disk[path] = f"d{self.count}"

    @rule(data=st.data())
    def move(self, data):
        old = data.draw(st.sampled_from(sorted(self.disk)))
        new = self.free(data, data.draw(st.sampled_from(sorted(self.disk))))
        if not old or new in self.disk or new == old or new.startswith(old + b"/"):
            return
        for path in [p for p in self.disk if p == old or p.startswith(old + b"/")]:
            self.disk[new + path[len(old) :]] = self.disk.pop(path)

    @rule(data=st.data())
    def enter(self, data):
        path = data.draw(st.sampled_from(sorted(self.disk)))
        put(self.tree, self.kernel, path, self.disk[path])
        assert self.tree.place_of(self.kernel.wd_of[self.disk[path]]) == (R, path)

    @rule(data=st.data())
    def leave(self, data):
        path = self.free(data, data.draw(st.sampled_from(sorted(self.disk))))
        if path not in self.disk:
            self.tree.drop(R, path)

    @invariant()
    def every_watch_has_one_place_and_every_place_one_watch(self):
        in_books = {wd: path for path, wd in self.tree.paths_of(R) if wd is not None}
        assert set(in_books) == set(self.kernel.wd_of.values())
        assert len(in_books) == self.tree.watched_count

    def teardown(self):
        """A whole walk, parents first, makes the books equal to the disk."""
        for path in sorted(self.disk, key=lambda p: p.replace(b"/", b"\0")):
            put(self.tree, self.kernel, path, self.disk[path])
        places = dict(self.tree.paths_of(R))
        for path, name in self.disk.items():
            assert places[path] == self.kernel.wd_of[name]


BooksAndDisk.TestCase.settings = hypothesis_settings(stateful_step_count=30)
TestBooksAndDisk = BooksAndDisk.TestCase
