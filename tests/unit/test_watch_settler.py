"""The settler under `now`: what comes to rest, when, and with how much memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import RootId, StatFingerprint
from msearchd.watch import hints
from msearchd.watch.hints import Hint
from msearchd.watch.rests import Delays
from msearchd.watch.settler import Bounds, Settler

R = RootId(1)
D = Delays()


def hint(path, flags, *, rec=False):
    return Hint(R, path, is_recursive=rec, flags=flags)


def when_due(settler, *, start, step=0.01, limit=1000.0):
    """(time, settled) of the next emission, by walking the clock to what next_due says."""
    now = start
    while now < limit:
        out = settler.due(now=now)
        if out:
            return now, out
        following = settler.next_due()
        if following is None:
            return None, []
        now = max(now + 1e-9, following)
    return None, []


@pytest.mark.parametrize(
    ("flags", "expected_s"),
    [
        (hints.CREATED | hints.CLOSED, D.closed_s),
        (hints.CLOSED, D.closed_s),
        (hints.MOVED, D.closed_s),
        (hints.GONE | hints.MOVED, D.closed_s),  # both halves of a rename come to rest together
        (hints.CREATED, D.created_s),
        (hints.MODIFIED, D.modified_s),
        (hints.ATTRIB, D.modified_s),
        (hints.GONE, D.gone_s),
    ],
)
def test_each_kind_of_hint_rests_for_its_own_time(flags, expected_s):
    settler = Settler()
    settler.observe(hint(b"a", flags), now=10.0)
    at, out = when_due(settler, start=10.0)
    assert at == pytest.approx(10.0 + expected_s)
    assert [s.path for s in out] == [b"a"]


def test_the_old_place_of_a_moved_folder_never_rests_shorter_than_its_new_one():
    settler = Settler(Delays(closed_s=0.001))
    settler.observe(hint(b"old", hints.GONE | hints.MOVED | hints.DIR), now=10.0)
    settler.observe(hint(b"new", hints.MOVED | hints.DIR, rec=True), now=10.0)
    assert [s.path for s in when_due(settler, start=10.0)[1]] == [b"new", b"old"]


def test_a_new_hint_starts_the_rest_anew():
    settler = Settler()
    for now in (0.0, 0.15, 0.3, 0.45):
        settler.observe(hint(b"a", hints.CLOSED), now=now)
        assert settler.due(now=now) == []
    at, _ = when_due(settler, start=0.45)
    assert at == pytest.approx(0.45 + D.closed_s)


def test_a_file_that_keeps_changing_is_released_after_the_cap():
    settler = Settler()
    now, out = 0.0, []
    while not out and now < 100:
        settler.observe(hint(b"log", hints.MODIFIED), now=now)
        out = settler.due(now=now)
        now += 0.25
    assert D.cap_s <= now - 0.25 <= D.cap_s + 0.5
    assert out[0].is_forced


def test_a_writer_that_closes_is_waited_for_no_longer_than_the_short_time():
    settler = Settler()
    settler.observe(hint(b"a", hints.CREATED), now=0.0)
    settler.observe(hint(b"a", hints.CLOSED), now=0.5)
    at, _ = when_due(settler, start=0.5)
    assert at == pytest.approx(0.7)


def test_setting_the_time_after_the_close_keeps_the_short_rest():
    settler = Settler()
    settler.observe(hint(b"a", hints.CLOSED), now=0.0)
    settler.observe(hint(b"a", hints.ATTRIB), now=0.05)
    at, out = when_due(settler, start=0.05)
    assert at == pytest.approx(0.25)
    assert out[0].flags & hints.CLOSED


def test_an_atomic_save_is_one_settled_change():
    settler = Settler()
    settler.observe(hint(b"a.txt", hints.GONE | hints.MOVED), now=0.0)
    settler.observe(hint(b"a.txt", hints.CREATED), now=0.01)
    settler.observe(hint(b"a.txt", hints.CLOSED), now=0.02)
    _, out = when_due(settler, start=0.02)
    assert [s.path for s in out] == [b"a.txt"]
    assert settler.next_due() is None


@pytest.mark.parametrize(
    "name", [b"f.part", b"film.mkv.crdownload", b"x.tmp", b".~lock.a.odt#", b"a~", b"#a#", b".a.swp", b"4913",
             b".goutputstream-X", b".syncthing.a.tmp", b"x.!qB", b"~$report.docx"],
)  # fmt: skip
def test_unfinished_names_never_come_to_rest(name):
    settler = Settler()
    settler.observe(hint(b"dir/" + name, hints.CREATED | hints.CLOSED), now=0.0)
    assert len(settler) == 0


def test_a_folder_may_bear_an_unfinished_name():
    settler = Settler()
    settler.observe(hint(b"backup~", hints.CREATED | hints.DIR, rec=True), now=0.0)
    assert [s.path for s in settler.due(now=1.0)] == [b"backup~"]


def test_repeat_offenders_are_put_off_longer_each_time_up_to_a_minute():
    settler = Settler()
    now, gaps = 0.0, []
    for _ in range(9):
        settler.observe(hint(b"app.log", hints.CLOSED), now=now)
        at, _ = when_due(settler, start=now)
        gaps.append(at - now)
        now = at + 1.0
    assert gaps[:2] == pytest.approx([D.closed_s, D.closed_s])  # saving twice is no offence
    assert gaps[2:] == pytest.approx([5, 10, 20, 40, 60, 60, 60])


def test_an_offender_that_rested_two_minutes_is_forgiven():
    settler = Settler()
    now = 0.0
    for _ in range(5):
        settler.observe(hint(b"a", hints.CLOSED), now=now)
        now, _ = when_due(settler, start=now)
    settler.observe(hint(b"a", hints.CLOSED), now=now + 121)
    at, _ = when_due(settler, start=now + 121)
    assert at == pytest.approx(now + 121 + D.closed_s)


def test_the_deletion_of_an_offender_is_not_put_off():
    settler = Settler()
    now = 0.0
    for _ in range(5):
        settler.observe(hint(b"a", hints.CLOSED), now=now)
        now, _ = when_due(settler, start=now)
    settler.observe(hint(b"a", hints.GONE), now=now)
    at, _ = when_due(settler, start=now)
    assert at == pytest.approx(now + D.gone_s)


def test_a_file_that_still_grows_is_looked_at_again_with_what_was_seen():
    settler = Settler()
    settler.observe(hint(b"a", hints.CREATED), now=0.0)
    at, (first,) = when_due(settler, start=0.0)
    seen = StatFingerprint(5, 1, 1, 1)
    settler.postpone(first, now=at, looked=seen)
    again_at, (again,) = when_due(settler, start=at)
    assert again_at == pytest.approx(at + D.modified_s)
    assert again.looked == seen


def test_what_is_postponed_for_ever_is_released_by_its_cap():
    settler = Settler()
    settler.observe(hint(b"a", hints.CREATED), now=0.0)
    at, (settled,) = when_due(settler, start=0.0)
    while not settled.is_forced:
        settler.postpone(settled, now=at, looked=None)
        at, (settled,) = when_due(settler, start=at)
        assert at <= D.cap_s + D.modified_s


def test_names_below_a_waiting_tree_are_spoken_for():
    settler = Settler()
    settler.observe(hint(b"d", hints.CREATED | hints.DIR, rec=True), now=0.0)
    settler.observe(hint(b"d/e/f.txt", hints.CREATED), now=0.01)
    assert [s.path for s in settler.due(now=1.0)] == [b"d"]
    assert len(settler) == 0


def test_a_burst_in_one_folder_becomes_one_listing_of_it():
    settler = Settler(bounds=Bounds(max_per_dir=10))
    for n in range(500):
        settler.observe(hint(b"d/%d" % n, hints.CREATED), now=n / 1000)
    assert len(settler) <= 11
    _, out = when_due(settler, start=0.5)
    whole = [s for s in out if s.path == b"d"]
    assert whole
    assert whole[0].is_shallow


def test_many_new_folders_in_one_become_one_tree():
    settler = Settler(bounds=Bounds(max_per_dir=10))
    for n in range(100):
        settler.observe(hint(b"d/%d" % n, hints.CREATED | hints.DIR, rec=True), now=0.0)
    assert len(settler) <= 11
    assert (b"d", True) in [(s.path, s.is_recursive) for s in settler.due(now=60.0)]


def test_flush_takes_everything_at_once_and_is_final():
    settler = Settler()
    for name in (b"a", b"b", b"c/d"):
        settler.observe(hint(name, hints.CREATED), now=0.0)
    assert [s.path for s in settler.flush()] == [b"a", b"b", b"c/d"]
    assert all(s.is_forced for s in settler.flush())
    assert (len(settler), settler.next_due()) == (0, None)


def test_what_was_asked_for_or_handed_out_in_vain_is_no_offence():
    settler = Settler()
    for now in range(6):
        settler.observe(hint(b"asked", hints.CLOSED), now=float(now))
        settler.flush()
    settler.observe(hint(b"vain", hints.CLOSED), now=10.0)
    now = 10.0
    for _ in range(6):
        at, (settled,) = when_due(settler, start=now)
        assert at == pytest.approx(now + D.closed_s)
        settler.put_back(settled, now=at)
        now = at
    settler.observe(hint(b"asked", hints.CLOSED), now=20.0)
    assert [s.path for s in settler.due(now=20.3)] == [b"asked", b"vain"]


def test_a_forgotten_root_leaves_nothing_behind():
    settler = Settler()
    settler.observe(hint(b"a", hints.CREATED), now=0.0)
    settler.observe(Hint(RootId(2), b"a", flags=hints.CREATED), now=0.0)
    settler.forget(R)
    assert [s.root for s in settler.flush()] == [RootId(2)]


PATHS = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"d/e/f", b"g/h/i", b"g/h/j", b"g"])
FLAGS = st.sampled_from([
    hints.CREATED, hints.CLOSED, hints.MODIFIED, hints.ATTRIB, hints.GONE, hints.MOVED, hints.GONE | hints.MOVED,
    hints.DIR | hints.CREATED, hints.DIR | hints.ATTRIB, hints.LOST,
])  # fmt: skip
STREAM = st.lists(st.tuples(PATHS, FLAGS, st.booleans(), st.floats(0, 3)), max_size=60)


def speaks_for(settled, path):
    if settled.path == path:
        return True
    if settled.is_recursive:
        return settled.path == b"" or path.startswith(settled.path + b"/")
    return settled.is_shallow and path.rpartition(b"/")[0] == settled.path


@given(STREAM, st.integers(2, 8), st.integers(3, 12))
def test_no_hint_is_ever_lost_whatever_the_bounds(stream, per_dir, pending):
    """P1, P3: after its cap every touched path was spoken for by something emitted at or after the hint."""
    settler = Settler(bounds=Bounds(max_per_dir=per_dir, max_pending=pending))
    now, open_, emitted = 0.0, {}, []
    for path, flags, rec, wait in stream:
        now += wait
        for settled in settler.due(now=now):
            emitted.append(settled)
            open_ = {p: f for p, f in open_.items() if not speaks_for(settled, p)}
        settler.observe(hint(path, flags, rec=rec), now=now)
        open_[path] = flags
        assert len(settler) <= pending + 1
    for settled in settler.due(now=now + 700):
        open_ = {p: f for p, f in open_.items() if not speaks_for(settled, p)}
    assert not open_
    assert len(settler) == 0


@given(STREAM)
def test_a_path_never_waits_longer_than_its_cap(stream):
    settler = Settler()
    now, first = 0.0, {}
    for path, flags, rec, wait in stream:
        now += wait
        for settled in settler.due(now=now):
            assert now - settled.first_at <= max(D.cap_s, 600) + 3.0
            first.pop(settled.path, None)
        settler.observe(hint(path, flags, rec=rec), now=now)
        due = settler.next_due()
        assert due is not None
        assert due <= now + 60.0 or due <= min(first.values(), default=now) + 600


@given(st.lists(st.tuples(PATHS, FLAGS), min_size=1, max_size=200))
def test_a_storm_emits_each_path_at_most_once(storm):
    """P4: n hints on m paths at once are at most m emissions."""
    settler = Settler()
    for path, flags in storm:
        settler.observe(hint(path, flags), now=0.0)
    out = settler.due(now=100.0)
    assert len({s.path for s in out}) == len(out) <= len({path for path, _ in storm})


def test_the_work_for_a_storm_does_not_grow_with_what_waits():
    """P4: heap pushes stay near the number of paths, not of hints."""
    settler = Settler()
    for n in range(20_000):
        settler.observe(hint(b"d%d/f" % (n % 50), hints.CLOSED), now=n / 10_000)
    assert len(settler._heap) <= 200
