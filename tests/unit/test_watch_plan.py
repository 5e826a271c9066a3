"""From what the disk shows and what is known to changes in order; and which losses are believed. All pure."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import KnownDir, RootId, StatFingerprint
from msearchd.watch import mounts, paths
from msearchd.watch.changes import DirScanned, FileGone, FileMoved, FileSeen, TreeGone, TreeMoved
from msearchd.watch.listing import signature
from msearchd.watch.plan import (
    Appeared,
    Found,
    compare,
    in_order,
    is_at_rest,
    is_same_tree,
    may_move,
    move_key,
    outermost,
)
from msearchd.watch.roots import Losses, doubt, is_network, is_of_the_kernel

R = RootId(1)


def fp(size=1, mtime=1, ctime=1, inode=1):
    return StatFingerprint(size, mtime, ctime, inode)


def signed(files, subdirs):
    """The signature of a folder whose entries come in the order of *files* and *subdirs*."""
    numbers = [number for f in files.values() for number in (f.size, f.mtime_ns, f.ctime_ns, f.inode)]
    return signature([os.fsdecode(name) for name in files], numbers, [os.fsdecode(name) for name in subdirs])


def appeared(fingerprint, *, device=9, left=""):
    return Appeared(fingerprint, device, is_live=True, left=left)


def test_equal_folders_have_no_difference():
    files = {b"a": fp(), b"b": fp(inode=2)}
    assert compare(files, [b"d"], dict(files), [b"d"]).is_empty


def test_a_change_of_ctime_alone_is_a_touch_and_any_other_is_new_bytes():
    known = {b"a": fp(), b"b": fp(), b"c": fp(), b"d": fp()}
    now = {b"a": fp(ctime=2), b"b": fp(size=2), b"c": fp(mtime=2), b"d": fp(inode=2)}
    diff = compare(now, [], known, [])
    assert diff.touched == (b"a",)
    assert set(diff.appeared) == {b"b", b"c", b"d"}


def test_a_file_left_alone_is_seen_once_its_reason_is_gone():
    """Left files carry inode 0: the same bytes with their real inode differ."""
    assert compare({b"big": fp(inode=7)}, [], {b"big": fp(inode=0)}, []).appeared == (b"big",)
    assert compare({b"big": fp(inode=0)}, [], {b"big": fp(inode=0)}, []).is_empty


def test_a_name_that_turned_from_file_to_folder_or_back_is_told_apart():
    diff = compare({b"was_dir": fp()}, [b"was_file"], {b"was_file": fp()}, [b"was_dir"])
    assert diff.file_to_dir == (b"was_file",)
    assert diff.dir_to_file == (b"was_dir",)
    assert diff.vanished == diff.gone_dirs == ()


def test_what_vanished_and_appeared_with_inode_size_and_time_is_one_move():
    found = Found()
    found.vanished[R, b"old"] = (fp(5, 6, 7, 8), 9)
    found.appeared[R, b"new"] = appeared(fp(5, 6, 70, 8))
    assert in_order(found) == [FileMoved(R, b"old", R, b"new", fp(5, 6, 70, 8))]


@pytest.mark.parametrize("other", [fp(6, 6, 7, 8), fp(5, 7, 7, 8), fp(5, 6, 7, 9)], ids=["size", "mtime", "inode"])
def test_the_same_inode_alone_is_never_a_move(other):
    found = Found()
    found.vanished[R, b"old"] = (fp(5, 6, 7, 8), 9)
    found.appeared[R, b"new"] = appeared(other)
    assert [type(c) for c in in_order(found)] == [FileSeen, FileGone]


def test_an_equal_number_on_another_disk_is_no_move():
    found = Found()
    found.vanished[R, b"old"] = (fp(), 9)
    found.appeared[RootId(2), b"new"] = appeared(fp(), device=10)
    assert FileMoved not in {type(c) for c in in_order(found)}


def test_a_move_between_roots_of_one_disk_is_one_move():
    found = Found()
    found.vanished[R, b"a"] = (fp(), 9)
    found.appeared[RootId(2), b"b"] = appeared(fp())
    assert in_order(found) == [FileMoved(R, b"a", RootId(2), b"b", fp())]


def test_one_vanished_file_is_the_source_of_one_move_only():
    found = Found()
    found.vanished[R, b"old"] = (fp(), 9)
    found.appeared[R, b"link1"] = appeared(fp())
    found.appeared[R, b"link2"] = appeared(fp())
    assert sorted(type(c).__name__ for c in in_order(found)) == ["FileMoved", "FileSeen"]


def test_files_left_alone_are_never_paired():
    assert move_key(fp(inode=0), 9) is None


def test_the_order_is_doubt_room_moves_new_gone_proof():
    found = Found()
    found.resets.append(DirScanned(R, b"", 1, 0, 0, 0, 5))
    found.tree_moves.append(TreeMoved(R, b"from", R, b"to"))
    found.appeared[R, b"n"] = appeared(fp(inode=3))
    found.vanished[R, b"v"] = (fp(inode=4), 9)
    found.gone_dirs[R, b"g"] = None
    found.scanned.append(DirScanned(R, b"s", 1, 1, 1, 1, 5))
    kinds = [type(c).__name__ for c in in_order(found)]
    assert kinds == ["DirScanned", "TreeGone", "TreeMoved", "FileSeen", "FileGone", "TreeGone", "DirScanned"]


def test_what_a_move_takes_out_of_a_folder_that_became_a_file_is_taken_before_that_folder_is_gone():
    """Else the moved tree is unknown at its new place, and its watches speak of folders that nobody knows (fuzz)."""
    found = Found()
    found.first_gone += [TreeGone(R, b"was"), FileGone(R, b"to"), TreeGone(R, b"deep")]
    found.tree_moves += [TreeMoved(R, b"was", R, b"to"), TreeMoved(R, b"deep/x", R, b"up"), TreeMoved(R, b"t", R, b"u")]
    found.appeared[R, b"was"] = appeared(fp(inode=3))
    assert in_order(found)[:-1] == [
        FileGone(R, b"to"), TreeGone(R, b"to"), TreeMoved(R, b"was", R, b"to"), TreeGone(R, b"up"),
        TreeMoved(R, b"deep/x", R, b"up"), TreeGone(R, b"u"), TreeMoved(R, b"t", R, b"u"),
        TreeGone(R, b"was"), TreeGone(R, b"deep"),
    ]  # fmt: skip


def test_a_tree_that_moved_to_where_a_file_was_seen_a_moment_before_is_not_emptied():
    found = Found()
    found.first_gone.append(TreeGone(R, b"d"))
    found.tree_moves.append(TreeMoved(R, b"t", R, b"d"))
    assert in_order(found) == [TreeGone(R, b"d"), TreeMoved(R, b"t", R, b"d")]


def test_a_file_goes_along_with_its_folder_though_a_folder_of_its_name_stands_at_the_old_place():
    found = Found()
    found.first_gone += [FileGone(R, b"t/c"), FileGone(R, b"s/c")]
    found.tree_moves += [TreeMoved(R, b"t", R, b"u"), TreeMoved(R, b"s", R, b"v"), TreeMoved(R, b"w", R, b"s/c")]
    gone = [change for change in in_order(found) if isinstance(change, FileGone)]
    assert gone == [FileGone(R, b"s/c")]  # which makes room for a move


def test_only_the_outermost_of_nested_folders_is_said_to_be_gone():
    places = [(R, b"a/b"), (R, b"a-b"), (R, b"a"), (R, b"a/b/c"), (RootId(2), b"a/b")]
    assert outermost(places) == [(R, b"a"), (R, b"a-b"), (RootId(2), b"a/b")]


@pytest.mark.parametrize(
    ("mtime", "sig", "is_same"), [(5, 9, True), (5, 8, True), (6, 9, True), (6, 8, False), (0, 0, False)]
)
def test_a_folder_is_the_same_by_inode_and_stamp_or_children(mtime, sig, is_same):
    known = KnownDir(inode=3, mtime_ns=mtime, ctime_ns=0, signature=sig, scanned_ms=1)
    assert is_same_tree(known, inode=3, mtime_ns=5, signature=9) is is_same
    assert not is_same_tree(known, inode=4, mtime_ns=5, signature=9)


def test_a_folder_never_moves_into_itself_or_onto_its_parent():
    assert not may_move((R, b"a"), (R, b"a/b"))
    assert not may_move((R, b"a/b"), (R, b"a"))
    assert may_move((R, b"a"), (R, b"ab"))
    assert may_move((R, b"a"), (RootId(2), b"a/b"))


NAMES = st.sampled_from([b"a", b"b", b"c"])
FILES = st.dictionaries(
    NAMES, st.builds(fp, st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(1, 2))
)


@given(FILES, st.sets(NAMES), FILES, st.sets(NAMES))
def test_applying_a_difference_always_gives_the_disk(files, subdirs, known_files, known_subdirs):
    subdirs -= files.keys()
    diff = compare(files, subdirs, known_files, known_subdirs)
    result = {n: f for n, f in known_files.items() if n not in (*diff.vanished, *diff.file_to_dir)}
    result |= {n: files[n] for n in (*diff.appeared, *diff.touched)}
    assert result == files
    dirs = known_subdirs - {*diff.gone_dirs, *diff.dir_to_file} | {*diff.new_dirs}
    assert dirs == subdirs


@given(FILES, st.sets(NAMES), FILES, st.sets(NAMES))
def test_equal_signatures_mean_equal_folders(files, subdirs, other_files, other_subdirs):
    one, other = (dict(sorted(some.items())) for some in (files, other_files))
    same = (files, subdirs) == (other_files, other_subdirs)
    assert (signed(one, sorted(subdirs)) == signed(other, sorted(other_subdirs))) is same


def test_a_signature_is_of_the_order_too_and_is_never_zero():
    a, b = {b"x": fp(), b"y": fp(2)}, {b"y": fp(2), b"x": fp()}
    assert signed(a, [b"p", b"q"]) == signed(dict(a), [b"p", b"q"]) != 0
    assert signed(a, []) != signed(b, [])
    assert -(2**63) <= signed(a, []) < 2**63


def test_a_file_rests_by_age_by_a_second_look_or_when_the_clock_stepped_back():
    now = 1_000_000_000_000
    young, old, future = fp(ctime=now - 10), fp(ctime=now - 2 * 10**9), fp(ctime=now + 10**9)
    assert not is_at_rest(young, now_ns=now, fresh_s=1.0)
    assert is_at_rest(old, now_ns=now, fresh_s=1.0)
    assert is_at_rest(future, now_ns=now, fresh_s=1.0)
    assert is_at_rest(young, now_ns=now, fresh_s=1.0, looked=young)
    assert not is_at_rest(young, now_ns=now, fresh_s=1.0, looked=fp(size=0, ctime=now - 20))


def losses(known, vanished, *, empty=False, vouched=False):
    return doubt(Losses(known, vanished, empty, vouched), brake_percent=50)


def test_a_root_that_is_empty_all_at_once_is_in_doubt():
    assert "mounted" in losses(3, 3, empty=True)


def test_losing_more_than_the_brake_allows_is_in_doubt():
    assert "60 of 100" in losses(100, 60)
    assert losses(100, 50) == ""


def test_a_few_files_are_a_person_tidying_up():
    assert losses(10, 9) == ""


def test_losses_in_a_folder_watched_all_along_are_believed():
    assert losses(1000, 1000, empty=True, vouched=True) == ""


def test_a_brake_of_a_hundred_percent_believes_all_but_an_empty_root():
    assert doubt(Losses(1000, 1000, is_empty=False, is_vouched=False), brake_percent=100) == ""
    assert doubt(Losses(1000, 1000, is_empty=True, is_vouched=False), brake_percent=100)


def test_files_that_a_scan_found_and_lost_again_do_not_make_more_losses_than_there_were_files():
    """72 of 53, in random sequences with kill -9: the scan met folders that were made, moved and removed while it ran."""
    assert doubt(Losses(53, 72, is_empty=False, is_vouched=False), brake_percent=100) == ""
    assert "53 of 53 files" in doubt(Losses(53, 72, is_empty=False, is_vouched=False), brake_percent=50)


MOUNTINFO = b"""\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /mnt/my\\040share rw - nfs4 srv:/x rw
31 22 0:41 / /home/a/cloud rw - fuse.rclone remote: rw
32 22 8:1 / /mnt/usb rw - fuseblk /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "fs_type", "network"),
    [
        (b"/home/a/docs", "ext4", False),
        (b"/mnt/my share/x", "nfs4", True),
        (b"/mnt/my share2", "ext4", False),
        (b"/home/a/cloud", "fuse.rclone", True),
        (b"/mnt/usb/music", "fuseblk", False),
    ],
)
def test_the_file_system_is_found_by_the_longest_mount_point(path, fs_type, network):
    assert mounts.type_at(mounts.parse(MOUNTINFO), path) == fs_type
    assert is_network(fs_type) is network
    assert not is_of_the_kernel(fs_type)


def test_everything_absolute_lies_below_the_top_of_the_disk():
    assert paths.is_below(b"/etc/passwd", b"/")
    assert paths.is_below(b"/", b"/")
    assert not paths.is_below(b"/", b"/etc")
    assert not paths.is_below(b"/etcetera", b"/etc")
