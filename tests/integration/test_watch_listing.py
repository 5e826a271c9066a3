"""One number for a folder: it is equal if and only if names, stats and rules are, and what follows from it is the truth."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from msearchd.settings import WatchSettings
from msearchd.watch.hints import Entered
from msearchd.watch.ignore import CONTROL_NAMES, Rules
from msearchd.watch.listing import if_unchanged, list_folder, signature
from msearchd.watch.patterns import PatternSet, Quick

ROW = st.tuples(
    st.text(st.sampled_from("ab.\udcff"), min_size=1, max_size=3),
    st.integers(0, 2**63),
    *[st.integers(-(2**62), 2**62)] * 2,
    st.integers(0, 2**64 - 1),
)


def of_rows(rows, subdirs, salt):
    return signature([row[0] for row in rows], [number for row in rows for number in row[1:]], subdirs, salt)


@given(st.lists(ROW, max_size=4), st.lists(st.sampled_from(["a", "b", "c"]), unique=True), st.binary(max_size=2))
def test_a_signature_follows_the_entries_whichever_objects_hold_them(rows, subdirs, salt):
    found = of_rows(rows, subdirs, salt)
    assert -(2**63) <= found < 2**63
    assert found != 0
    # Other objects of the same values: as another process reads them.
    again = [(bytes(row[0], "utf-8", "surrogateescape").decode("utf-8", "surrogateescape"), *row[1:]) for row in rows]
    assert of_rows(again, list(subdirs), bytes(bytearray(salt))) == found
    assert of_rows(rows, [*subdirs, "d"], salt) != found
    assert of_rows([*rows, ("c", 0, 0, 0, 1)], subdirs, salt) != found
    assert of_rows(rows, subdirs, salt + b"x") != found
    if rows:
        assert of_rows([*rows[:-1], (rows[-1][0] + "x", *rows[-1][1:])], subdirs, salt) != found
        assert of_rows([*rows[:-1], (*rows[-1][:-1], rows[-1][-1] ^ 1)], subdirs, salt) != found


def test_a_file_that_became_a_folder_shows():
    assert signature(["a", "b"], [], []) != signature(["a"], [], ["b"])
    assert signature([], [], ["a"]) != signature(["a"], [], [])


def test_a_signature_is_the_same_number_in_every_life_of_the_program():
    row = ("a.txt", 5, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790, 2**63 + 1)
    assert of_rows([row, ("b\udcff", 300, -1, 0, 7)], ["d"], b"salt") == -2240860889747234994


NAMES = st.sampled_from(["a", "b.x", "-", ".a", ".gitignore", ".msearchignore", ".nomedia", "!b", "caf\udce9"])


@given(st.sets(NAMES, max_size=5), st.sets(st.sampled_from(["d", ".nomedia", "-d"]), max_size=2), st.booleans())
def test_a_folder_passed_by_is_the_folder_as_a_whole_listing_sees_it(names, subdirs, use_gitignore):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "f"
        base.mkdir()
        for name in subdirs:
            (base / name).mkdir()
        for name in names - subdirs:
            (base / name).write_text("b.x\n")
        settings = WatchSettings(use_gitignore=use_gitignore)
        path, root = b"f", os.fsencode(folder)
        fd = os.open(os.path.join(root, path), os.O_RDONLY)
        try:
            whole = list_folder(
                path, fd, Rules(root, settings), max_file_bytes=10**9, entered=Entered(), held=frozenset()
            )
            # Rules that never saw the folder, and some that saw it without its ignore files.
            stale = Rules(root, settings)
            stale.folder(path)
            for rules in (Rules(root, settings), stale):
                short = if_unchanged(path, fd, rules, whole.signature)
                assert short is not None
                assert sorted(short.subdirs) == sorted(whole.subdirs)
                assert (short.inode, short.mtime_ns, short.ctime_ns) == (whole.inode, whole.mtime_ns, whole.ctime_ns)
            (base / "new").touch()
            assert if_unchanged(path, fd, stale, whole.signature) is None
            (base / "new").unlink()
            for control in CONTROL_NAMES & names - subdirs:
                (base / control).unlink()
                assert if_unchanged(path, fd, stale, whole.signature) is None
        finally:
            os.close(fd)


@given(
    st.lists(
        st.sampled_from(
            ["a", "b/", "*.x", "*.y/", "!a", "/a", "a/b", "*", "[ab]", "a*", "**/b", ".c*/", "a/**", "x y/"]
        ),
        max_size=5,
    ),
    st.sampled_from(["a", "b", "c", "c.x", "c.y", "ab", ".c", ".cd", "x y", "~", "z"]),
)
def test_the_quick_look_never_lets_a_left_out_folder_pass(lines, name):
    patterns = PatternSet(lines, "f")
    quick = Quick.of_dirs([patterns])
    if quick is not None and quick.is_plain(name):
        assert patterns.check(name, name, is_dir=True) is None
        assert patterns.check(f"a/{name}", name, is_dir=True) is None


def test_ordinary_folders_are_told_from_the_built_in_list_by_their_names_alone():
    rules = Rules(b"/nowhere", WatchSettings()).folder(b"")
    assert rules.quick_dirs is not None
    assert rules.quick_dirs.is_plain("Documents")
    assert not rules.quick_dirs.is_plain("node_modules")
    assert rules.check("node_modules", is_dir=True) is not None
