"""The native source's parts that need no kernel: event bytes, the drain's backlog, and the tree of watches."""

import os

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from msearchd.domain.asset import RootId
from msearchd.watch.settler import Settler
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources.drain import Backlog, stamp
from msearchd.watch.sources.gather import gather
from msearchd.watch.sources.watch_tree import WatchTree

R = RootId(1)


def event(wd, mask, name=b""):
    padded = name + b"\0" * (16 - len(name) % 16) if name else b""
    return abi.HEADER.pack(wd, mask, 0, len(padded)) + padded


EVENTS = st.lists(st.tuples(st.integers(-3, 9), st.integers(1, 2**31), st.binary(min_size=0, max_size=40).map(
    lambda b: b.replace(b"\0", b"x"))), max_size=20)  # fmt: skip


def parse(buffer):
    """Whole events, one by one: (watch, mask, name)."""
    at = 0
    while at + 16 <= len(buffer):
        wd, mask, _, length = abi.HEADER.unpack_from(buffer, at)
        if at + 16 + length > len(buffer):
            return
        yield wd, mask, buffer[at + 16 : at + 16 + length].rstrip(b"\0")
        at += 16 + length


def gathered(*buffers):
    """(hints, rare events) of a stream in pieces, the rest of one put in front of the next."""
    found, rare, rest = [], [], b""
    for buffer in buffers:
        rest += buffer
        taken = gather(
            rest,
            place_of=lambda wd: (R, b"d%d" % wd if wd else b"") if 0 <= wd < 5 else None,
            put_all=found.extend,
            rare=lambda wd, mask, name, _: rare.append((wd, mask, name)),
        )
        rest = rest[taken:]
    assert not rest
    return found, rare


@given(EVENTS, st.integers(0, 2000))
def test_events_survive_any_cut_of_the_stream(events, cut):
    stream = b"".join(event(*e) for e in events)
    found, rare = gathered(stream[:cut], stream[cut:])
    named = [e for e in events if 0 <= e[0] < 5 and e[2]]
    assert rare == [e for e in events if e not in named]
    assert {hint.path for hint in found} == {(b"d%d/" % wd if wd else b"") + name for wd, _, name in named}


KINDS = [abi.CREATE, abi.CLOSE_WRITE, abi.MODIFY, abi.ATTRIB, abi.DELETE, abi.MOVED_FROM, abi.MOVED_TO]


@given(st.lists(st.tuples(
    st.integers(0, 2), st.sampled_from([*KINDS, *(kind | abi.ISDIR for kind in KINDS)]), st.sampled_from([b"a", b"b"])
), max_size=30))  # fmt: skip
def test_what_is_said_at_once_comes_to_the_same_as_what_is_said_one_by_one(events):
    at_once, one_by_one = Settler(), Settler()
    at_once.observe_all(gathered(b"".join(event(*e) for e in events))[0], now=1.0)
    for one in events:
        one_by_one.observe_all(gathered(event(*one))[0], now=1.0)
    left, right = ({s.path: s for s in settler.flush()} for settler in (at_once, one_by_one))
    # A name below a tree that waits already may be told as well, or not: the tree speaks for it.
    trees = {path for path, s in left.items() if s.is_recursive}
    assert trees == {path for path, s in right.items() if s.is_recursive}
    for path in left.keys() | right.keys():
        if not any(path.startswith(tree + b"/") for tree in trees):
            assert left[path] == right[path]


def test_the_drain_tells_the_time_in_the_stream():
    found, rare = gathered(stamp(12.5) + event(1, abi.CREATE, b"a"))
    assert rare == [(abi.STAMP_WD, 0, b"12500000")]
    assert [hint.path for hint in found] == [b"d1/a"]
    assert stamp(10.0**9)[16:].rstrip(b"\0") == b"1000000000000000", "thirty years of running"


def test_hints_are_told_before_what_is_rare_and_came_after_them():
    told = []
    gather(
        event(1, abi.CREATE, b"a") + event(-1, abi.Q_OVERFLOW) + event(1, abi.CREATE, b"b"),
        place_of=lambda wd: (R, b"") if wd == 1 else None,
        put_all=lambda found: told.extend(hint.path for hint in found),
        rare=lambda _wd, mask, _name, _place: told.append(mask),
    )
    assert told == [b"a", abi.Q_OVERFLOW, b"b"]


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
    seen = list(parse(got))
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


def test_children_are_entered_at_once_and_those_that_need_a_closer_look_are_named(books):
    tree, kernel = books
    put(tree, kernel, b"f/old", "Old")
    put(tree, kernel, b"f/same", "Same")
    put(tree, kernel, b"elsewhere", "Moved")

    def watch(name):
        if name == b"gone":
            raise FileNotFoundError
        return kernel.watch({b"new": "New", b"old": "Other", b"same": "Same", b"moved": "Moved"}[name])

    names = [b"new", b"old", b"same", b"moved", b"gone"]
    assert tree.put_children((R, b"f"), names, watch) == [b"moved", b"gone"]
    assert tree.place_of(kernel.wd_of["New"]) == (R, b"f/new")
    assert tree.place_of(kernel.wd_of["Other"]) == (R, b"f/old")
    assert "Old" not in kernel.wd_of
    kernel.is_full = True
    assert tree.put_children((R, b"f"), [b"full"], lambda _: kernel.watch("Full")) == [b"full"]
    assert tree.put_children((RootId(9), b""), [b"a"], watch) == [b"a"], "a root that is not there any more"


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
    def enter_children(self, data):
        folder = data.draw(st.sampled_from(sorted(self.disk)))
        paths_of = {p.rpartition(b"/")[2]: p for p in self.disk if p and p.rpartition(b"/")[0] == folder}
        others = self.tree.put_children(
            (R, folder), sorted(paths_of), lambda name: self.kernel.watch(self.disk[paths_of[name]])
        )
        for name in others:
            put(self.tree, self.kernel, paths_of[name], self.disk[paths_of[name]])
        for path in paths_of.values():
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
