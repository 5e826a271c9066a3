"""Any sequence of what watch and identify report, against a dict: what is visible, counted and held is the same."""

import catalog_world
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from msearchd.domain.asset import AssetState, RootState
from msearchd.domain.media import Extraction, Segment, SegmentKind
from msearchd.store.catalog import contents, known, names, paths, status, sweep, tree, words
from msearchd.store.catalog.question import Question
from msearchd.store.catalog.scope import OPEN

NAMES = st.sampled_from([b"note.txt", b"Note.TXT", b"\xff.txt", "東京.txt".encode(), b"a"])
FOLDERS = st.lists(st.sampled_from([b"a", b"b"]), max_size=2).map(b"/".join)
PATHS = st.tuples(FOLDERS, NAMES).map(lambda pair: b"/".join(filter(None, pair)))
BYTES = st.sampled_from([b"apple", b"banana", b"cherry", b""])
STATES = st.sampled_from(list(AssetState))


def below(path, folder):
    return not folder or path.startswith(folder + b"/")


class Tree(RuleBasedStateMachine):
    """`files`: (root, path) -> [bytes on disk, bytes identified or None, state, asset]. Gone ones keep their identified bytes."""

    def __init__(self):
        super().__init__()
        self.c = catalog_world.connection()
        self.now_ms = 1000
        self.files = {}
        self.gone = {}

    @initialize()
    def add_roots(self):
        self.roots = [tree.add_root(self.c, path, now_ms=1) for path in (b"/home/u", b"/mnt/disk")]

    roots_at = st.integers(0, 1)

    @rule(root=roots_at, path=PATHS, data=BYTES)
    def see(self, root, path, data):
        self._see(root, path, data)

    @rule(root=roots_at, path=PATHS, data=BYTES)
    def see_and_identify(self, root, path, data):
        self._see(root, path, data)
        if (root, path) in self.files:
            self._identify(self.files[root, path])

    def _see(self, root, path, data):
        if self._is_folder(root, path) or self._has_file_above(root, path):
            return
        asset = tree.see_file(self.c, self.roots[root], path, catalog_world.fingerprint(data))
        known_file = self.files.get((root, path))
        if known_file is not None:
            assert asset == known_file[3]
            known_file[0] = data
            return
        before = self.gone.pop((root, path), None)
        held = before[1] if before is not None and before[0] == data else None
        if before is not None:
            assert asset == before[3]
        self.files[root, path] = [data, held, before[2] if before else AssetState.PENDING, asset]

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def hide(self, data):
        root, path = self._some_file(data)
        asset = tree.hide_file(self.c, self.roots[root], path, now_ms=self.now_ms)
        known_file = self.files.pop((root, path), None)
        assert asset == (None if known_file is None else known_file[3])
        if known_file is not None:
            self.gone[root, path] = known_file

    @rule(root=roots_at, folder=FOLDERS, limit=st.integers(1, 3))
    def hide_tree(self, root, folder, limit):
        hidden = []
        while some := tree.hide_tree(self.c, self.roots[root], folder, limit=limit, now_ms=self.now_ms):
            assert len(some) <= limit
            hidden += some
        lost = [key for key in self.files if key[0] == root and below(key[1], folder)]
        assert sorted(hidden) == sorted(self.files[key][3] for key in lost)
        for key in lost:
            self.gone[key] = self.files.pop(key)

    @rule(root=roots_at, path=PATHS)
    def hide_what_may_not_be_there(self, root, path):
        if (root, path) not in self.files:
            assert tree.hide_file(self.c, self.roots[root], path, now_ms=self.now_ms) is None

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), is_same=st.booleans())
    def see_again(self, data, is_same):
        root, path = data.draw(st.sampled_from(sorted(self.gone)))
        self._see(root, path, self.gone[root, path][0] if is_same else data.draw(BYTES))

    @precondition(lambda self: self.files)
    @rule(data=st.data(), root=roots_at, new=PATHS)
    def move_file(self, data, root, new):
        old_root, old = self._some_file(data)
        if self._is_folder(root, new) or self._has_file_above(root, new):
            return
        moved = self.files.pop((old_root, old))
        asset = tree.move_file(self.c, self.roots[old_root], old, self.roots[root], new,
                               catalog_world.fingerprint(moved[0]), now_ms=self.now_ms)  # fmt: skip
        assert asset == moved[3]
        self.gone.pop((root, new), None)
        self.files[root, new] = moved

    @precondition(lambda self: any(b"/" in path for _, path in self.files))
    @rule(data=st.data(), root=roots_at, new=FOLDERS)
    def move_tree(self, data, root, new):
        """As rename(2): a folder that exists, onto nothing or an empty folder, never into itself."""
        old_root, old = data.draw(st.sampled_from(sorted(self._folders())))
        impossible = (
            not old or not new or (root, new) == (old_root, old) or not self._is_folder(old_root, old)
            or (root == old_root and below(new, old)) or self._is_folder(root, new) or (root, new) in self.files
            or self._has_file_above(root, new) or (root == old_root and below(old, new))
        )  # fmt: skip
        if impossible:
            return
        moved = tree.move_tree(self.c, self.roots[old_root], old, self.roots[root], new, now_ms=self.now_ms)
        assert moved is not None
        assert moved.is_rename == (root == old_root and old.rpartition(b"/")[0] == new.rpartition(b"/")[0])
        self.gone = {key: value for key, value in self.gone.items() if not (key[0] == root and below(key[1], new))}
        for files in (self.files, self.gone):
            for key in [key for key in files if key[0] == old_root and below(key[1], old)]:
                files[root, new + key[1][len(old) :]] = files.pop(key)

    @precondition(lambda self: self.files)
    @rule(draw=st.data())
    def identify(self, draw):
        self._identify(self.files[self._some_file(draw)])

    def _identify(self, known_file):
        data, _, _, asset = known_file
        found = catalog_world.identified(data)
        content = contents.identified(self.c, asset, found, now_ms=self.now_ms)
        known_file[1] = data
        if data:
            segment = Segment(SegmentKind.BODY, 0, data.decode())
            contents.extracted(self.c, content.id, Extraction((segment,)), part=None, now_ms=self.now_ms)

    @precondition(lambda self: self.files)
    @rule(data=st.data(), state=STATES)
    def set_state(self, data, state):
        known_file = self.files[self._some_file(data)]
        tree.set_state(self.c, known_file[3], state, "why")
        known_file[2] = state

    @rule()
    def sweep(self):
        """The grace is over: what is gone is forgotten, what is orphaned goes."""
        for content in sweep.orphans_due(self.c, before_ms=1 << 60, limit=100):
            assert sweep.forget_content(self.c, content.id, now_ms=self.now_ms) == ()
        sweep.purge_gone(self.c, before_ms=1 << 60, limit=100)
        self.gone.clear()
        assert self.c.execute("SELECT count(*) FROM asset").fetchone()[0] == len(self.files)
        held = {entry[1] for entry in self.files.values()} - {None}
        assert self.c.execute("SELECT count(*) FROM content").fetchone()[0] == len(held)
        assert self.c.execute("SELECT count(*) FROM segment").fetchone()[0] == len(held - {b""})

    def _some_file(self, data):
        return data.draw(st.sampled_from(sorted(self.files)))

    def _folders(self):
        """Folders below a root that hold a file, at any depth."""
        parts = [(root, path.split(b"/")[:-1]) for root, path in self.files]
        return {(root, b"/".join(some[:i])) for root, some in parts for i in range(1, len(some) + 1)}

    def _is_folder(self, root, path):
        return any(key[0] == root and below(key[1], path) for key in self.files)

    def _has_file_above(self, root, path):
        parts = path.split(b"/")
        return any((root, b"/".join(parts[:i])) in self.files for i in range(1, len(parts)))

    # -- what always holds ----------------------------------------------------------------------------------------------

    @invariant()
    def paths_and_states_are_those_of_the_model(self):
        for (root, path), (data, held, state, asset) in self.files.items():
            row = known.asset(self.c, asset)
            assert row is not None
            assert (row.root, row.relative, row.state, row.is_gone) == (self.roots[root], path, state, False)
            assert row.fingerprint == catalog_world.fingerprint(data)
            content = None if row.content is None else contents.content(self.c, row.content)
            assert (None if content is None else content.content_hash) == (
                None if held is None else catalog_world.content_hash(held))  # fmt: skip
            assert known.asset_by_path(self.c, row.path) == row

    @invariant()
    def folders_list_exactly_the_visible_files(self):
        for at, root in enumerate(getattr(self, "roots", [])):
            folders = {b"", *(path.rpartition(b"/")[0] for key_root, path in self.files if key_root == at)}
            for folder in folders:
                wanted = {path[len(folder) :].lstrip(b"/") for key_root, path in self.files
                          if key_root == at and path.rpartition(b"/")[0] == folder}  # fmt: skip
                assert set(known.files(self.c, root, folder)) == wanted
                count = sum(1 for key_root, path in self.files if key_root == at and below(path, folder))
                assert known.count_files(self.c, root, folder) == count

    @invariant()
    def counts_add_up(self):
        counted = known.counts(self.c)
        for at, root in enumerate(getattr(self, "roots", [])):
            states = [entry[2] for key, entry in self.files.items() if key[0] == at]
            assert counted[root] == {state: states.count(state) for state in AssetState}
        assert status.totals(self.c).assets == len(self.files)
        n_segments = self.c.execute("SELECT count(*) FROM segment WHERE text <> ''").fetchone()[0]
        assert status.totals(self.c).segments == n_segments

    @invariant()
    def contents_know_how_many_files_show_them(self):
        for id_, hash_, visible, orphan_ms in self.c.execute(
            "SELECT id, hash, visible, orphan_ms FROM content"
        ).fetchall():
            holders = [entry for entry in self.files.values() if entry[1] is not None
                       and catalog_world.content_hash(entry[1]) == hash_]  # fmt: skip
            assert visible == len(holders)
            assert (orphan_ms is None) == (visible > 0)
            dirs = contents.dirs_of(self.c, id_)
            assert bool(dirs) == bool(holders)

    @invariant()
    def search_shows_what_is_visible_and_nothing_else(self):
        for data in (b"apple", b"banana"):
            holders = [entry for entry in self.files.values() if entry[1] == data]
            found = words.ranked(self.c, Question.parse(data.decode()), OPEN, words.TermCounts(), limit=10)
            assert len(found) == (1 if holders else 0)
        for text in ("note", "東京"):
            found = names.ranked(self.c, text, Question.parse(text), OPEN, limit=100)
            shown = [(path.decode("utf-8", "replace").lower(), entry[3]) for (_, path), entry in self.files.items()]
            assert {one.asset for one in found} >= {id_ for path, id_ in shown if text in path.rpartition("/")[2]}
            assert {one.asset for one in found} <= {id_ for path, id_ in shown if text in path}

    @invariant()
    def nothing_dangles(self):
        assert self.c.execute("PRAGMA foreign_key_check").fetchall() == []

    def teardown(self):
        self.c.execute("INSERT INTO segment_words (segment_words) VALUES ('integrity-check')")
        for table in ("asset_names", "dir_names"):
            self.c.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
        self.c.close()


TestTree = Tree.TestCase
TestTree.settings = settings(stateful_step_count=25)


def test_an_offline_root_keeps_its_files():
    c = catalog_world.connection()
    root = tree.add_root(c, b"/mnt/disk", now_ms=1)
    tree.see_file(c, root, b"a.txt", catalog_world.fingerprint(b"x"))
    tree.set_root_state(c, root, RootState.OFFLINE, "not mounted")
    assert [(one.state, one.reason) for one in paths.roots(c)] == [(RootState.OFFLINE, "not mounted")]
    assert known.count_files(c, root, b"") == 1
    c.close()


@pytest.mark.parametrize("path", [b"/home/u/docs", b"/home", b"/"])
def test_a_root_inside_another_is_refused_with_what_to_do(path):
    c = catalog_world.connection()
    tree.add_root(c, b"/home/u", now_ms=1)
    with pytest.raises(tree.errors.BadRequest, match="watched") as refused:
        tree.add_root(c, path, now_ms=1)
    assert refused.value.hint
    c.close()


def test_a_root_added_twice_is_one_and_removed_comes_back_with_its_ids():
    c = catalog_world.connection()
    first = tree.add_root(c, b"/home/u/", now_ms=1)
    asset = tree.see_file(c, first, b"a.txt", catalog_world.fingerprint(b"x"))
    tree.remove_root(c, first, now_ms=2)
    assert paths.roots(c) == []
    assert known.asset(c, asset) is None
    assert tree.add_root(c, b"/home/u", now_ms=3) == first
    assert known.asset(c, asset) is not None
    c.close()


def test_a_huge_inode_and_signature_survive():
    c = catalog_world.connection()
    root = tree.add_root(c, b"/r", now_ms=1)
    stat = catalog_world.fingerprint(b"x", inode=2**64 - 3)
    asset = tree.see_file(c, root, b"a", stat)
    tree.compared_dir(c, root, b"", inode=2**63 + 9, mtime_ns=-5, ctime_ns=6, signature=-(2**63), scanned_ms=7)
    assert known.asset(c, asset).fingerprint == stat
    assert known.directory(c, root, b"") == known.KnownDir(2**63 + 9, -5, 6, -(2**63), 7)
    c.close()
