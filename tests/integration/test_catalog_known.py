"""Many folders asked for at once are what each by itself is."""

import catalog_world
from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.catalog import known, tree

NAME = st.sampled_from([b"a", b"b", b"c", b"ab", b"a-", b"\xff", b"z"])
PATH = st.lists(NAME, max_size=3).map(b"/".join)


@given(
    st.lists(st.tuples(PATH, st.integers(0, 2)), max_size=15),
    st.lists(PATH, max_size=2),
    st.lists(PATH, max_size=12),
)
def test_folders_asked_for_together_are_what_each_is_by_itself(compared, gone, wanted):
    c = catalog_world.connection()
    try:
        root = tree.add_root(c, b"/r", now_ms=1)
        for path, scanned_ms in compared:
            tree.compared_dir(
                c, root, path, inode=7, mtime_ns=1, ctime_ns=2, signature=len(path), scanned_ms=scanned_ms
            )
        for path in gone:
            if path:
                while tree.hide_tree(c, root, path, limit=100, now_ms=5):
                    pass
        assert known.some_directories(c, root, wanted) == {path: known.directory(c, root, path) for path in wanted}
        for path in wanted:
            assert known.contents(c, root, path) == (known.files(c, root, path), known.subdirs(c, root, path))
    finally:
        c.close()


def test_two_of_very_many_siblings_are_found_without_reading_all(tmp_path):
    c = catalog_world.connection()
    root = tree.add_root(c, b"/r", now_ms=1)
    for n in range(500):
        tree.compared_dir(c, root, b"%04d" % n, inode=n + 1, mtime_ns=1, ctime_ns=2, signature=9, scanned_ms=3)
    rows = []
    c.set_trace_callback(rows.append)
    found = known.some_directories(c, root, [b"0000", b"0499"])
    c.set_trace_callback(None)
    assert [row.inode for row in found.values()] == [1, 500]
    assert any("LIMIT 4" in row for row in rows)
    c.close()
