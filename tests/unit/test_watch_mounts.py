"""Which disk is where, from the mount table and what is remembered; and what clocks tell. All but the marks' file pure."""

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import RootId
from msearchd.watch import mounts
from msearchd.watch.clocks import Clocks, what_happened
from msearchd.watch.inner_mounts import AWAY, OTHER, InnerMounts, Turned
from msearchd.watch.marks import Marks, RootMark

TABLE = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:17 / /home/a/usb\040stick rw - vfat /dev/sdb1 rw
31 22 0:40 / /home/a/net rw - nfs4 srv:/x rw
32 30 8:33 / /home/a/usb\040stick/deep rw - ext4 /dev/sdc1 rw
33 22 8:1 /x /home/ab rw - ext4 /dev/sda1 rw
broken line
"""


def test_mount_points_below_a_folder_are_found_with_their_escapes_and_no_neighbour():
    table = mounts.parse(TABLE)
    assert mounts.points_below(table, b"/home/a") == (b"net", b"usb stick", b"usb stick/deep")
    assert mounts.points_below(table, b"/home/a/net") == ()
    assert mounts.points_below(table, b"/") == (
        b"home/a/net",
        b"home/a/usb stick",
        b"home/a/usb stick/deep",
        b"home/ab",
    )


@given(st.binary(max_size=300))
def test_a_mount_table_of_any_bytes_is_read_without_an_error(table):
    for mount in mounts.parse(table):
        assert isinstance(mount.fs_type, str)


def test_a_disk_inside_that_goes_is_held_and_one_that_comes_is_compared():
    inner = InnerMounts()
    assert inner.turn({b"a/usb": (7, 2)}, strange=frozenset(), ids={b"a/usb": "U"}) == Turned(came=(b"a/usb",))
    inner.check(b"a/usb", (7, 2))
    inner.check(b"a", (1, 1))
    assert inner.turn({}, strange=frozenset(), ids={}) == Turned(went=(b"a/usb",))
    with pytest.raises(OSError, match=AWAY) as caught:
        inner.check(b"a/usb", (1, 99))
    assert caught.value.errno == errno.ENODEV
    assert inner.held_names(b"") == {b"a"}
    assert inner.held_names(b"a") == {b"usb"}
    assert inner.held_names(b"b") == frozenset()
    assert inner.is_away(b"a/usb/x")
    assert not inner.is_away(b"a/usb2")
    assert inner.turn({b"a/usb": (8, 2)}, strange=frozenset(), ids={b"a/usb": "U"}).came == (b"a/usb",)
    assert inner.held_names(b"") == frozenset()


def test_a_folder_that_shows_another_directory_than_the_mounted_one_is_never_believed():
    inner = InnerMounts()
    inner.turn({b"usb": (7, 2)}, strange=frozenset(), ids={b"usb": "U"})
    with pytest.raises(OSError, match="away"):  # unmounted, and the table not read again yet
        inner.check(b"usb", (1, 55))


def test_another_disk_at_the_place_of_a_known_one_is_told_apart_until_a_person_decides():
    inner = InnerMounts({b"usb": "U"})
    assert inner.away == {b"usb": AWAY}
    assert not inner.turn({b"usb": (9, 2)}, strange=frozenset({b"usb"}), ids={b"usb": "V"})
    assert inner.away == {b"usb": OTHER}
    assert inner.forget_away() == (b"usb",)
    inner.check(b"usb", (9, 2))
    assert inner.remembered() == ()


def test_marks_outlive_the_daemon_whatever_the_names(tmp_path):
    marks = Marks(tmp_path / "roots.json")
    mark = RootMark(b"/a/\xff", "uuid:1", 5, ((b"b/\xfe", "fsid:2"),), (b"c", b"\xfd"))
    assert marks.of(RootId(1), b"/a/\xff") == RootMark(b"/a/\xff")
    marks.put(RootId(1), mark)
    assert marks.is_dirty
    marks.save()
    assert not marks.is_dirty
    again = Marks(tmp_path / "roots.json")
    assert again.of(RootId(1), b"/a/\xff") == mark
    assert again.of(RootId(1), b"/other") == RootMark(b"/other"), "the number stands for another folder now"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "roots": {"x": 1}}', '{"version": 9}']
)
def test_marks_that_are_broken_are_forgotten(tmp_path, text):
    (tmp_path / "roots.json").write_text(text)
    marks = Marks(tmp_path / "roots.json")
    marks.put(RootId(1), RootMark(b"/a"))
    marks.save()
    assert json.loads((tmp_path / "roots.json").read_text())["roots"].keys() == {"1"}


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (Clocks(103, 13, 23), ""),
        (Clocks(103.2, 13, 23), ""),  # slewed by NTP
        (Clocks(703, 13, 623), "resumed"),
        (Clocks(3703, 13, 23), "stepped"),
        (Clocks(50, 13, 23), "stepped"),
        (Clocks(100, 13, 623), "resumed"),  # slept, and then the clock was set too
    ],
)
def test_sleep_and_a_set_clock_are_told_apart(after, what):
    assert what_happened(Clocks(100, 10, 20), after) == what


def test_a_mount_table_that_keeps_changing_is_looked_at_ever_more_rarely_and_after_quiet_at_once():
    pace, now, rests = mounts.Pace(), 100.0, []
    for _ in range(6):
        rests.append(pace.rest_after(now))
        now += rests[-1]
    assert rests == [0.25, 0.5, 1, 2, 2, 2]
    assert pace.rest_after(now + 60) == 0.25


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50))
def test_a_mount_is_never_heard_of_later_than_two_seconds_after_it(gaps):
    pace, now = mounts.Pace(), 0.0
    for gap in gaps:
        rest = pace.rest_after(now)
        assert 0.25 <= rest <= 2
        now += rest + gap
