"""Time left: by kind of work, from what was measured, and nothing rather than a wrong number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.orchestrator.progress import IDENTIFY, Pace, PaceMeter, time_left_s

EMBED, OCR, EXTRACT, PICTURES = ("embed", "mini"), ("ocr", ""), ("extract", ""), ("embed", "clip")


def steady(jobs_per_s, *, ended=0, slices=4):
    return Pace(((5.0, round(5 * jobs_per_s)),) * slices, ended)


def left(waiting, paces, at_start=None, **more):
    return time_left_s(waiting, paces, at_start=waiting if at_start is None else at_start, **more)


def test_cheap_steps_do_not_make_dear_ones_look_near():
    # 1,000 files were looked at in a second; 100 scans of pages wait, each takes 10 s.
    paces = {IDENTIFY: steady(1000, ended=1000), OCR: Pace(((10.0, 1),) * 4, 4)}
    assert left({OCR: 100}, paces) == pytest.approx(1000)


def test_lanes_work_side_by_side_and_kinds_of_one_lane_one_after_the_other():
    paces = {EXTRACT: steady(2, ended=9), EMBED: steady(1, ended=9), IDENTIFY: steady(10, ended=50)}
    assert left({EXTRACT: 20, EMBED: 30}, paces) == pytest.approx(30)
    assert left({EXTRACT: 20, EMBED: 3}, paces) == pytest.approx(10)


def test_models_that_take_turns_are_added_up():
    paces = {EMBED: steady(1), PICTURES: steady(2)}
    assert left({EMBED: 10, PICTURES: 10}, paces) == pytest.approx(10)
    assert left({EMBED: 10, PICTURES: 10}, paces, takes_turns=True) == pytest.approx(15)


def test_files_not_looked_at_yet_will_owe_what_the_files_before_them_owed():
    # Of 100 files looked at each owed an embedding: 40 are done, 60 wait; 100 more files are to come.
    paces = {IDENTIFY: steady(100, ended=100), EMBED: steady(2, ended=40)}
    assert left({IDENTIFY: 100, EMBED: 60}, paces, {IDENTIFY: 200}) == pytest.approx(160 / 2)


def test_what_waited_before_the_start_was_not_brought_by_new_files():
    paces = {IDENTIFY: steady(100, ended=100), EMBED: steady(2, ended=40)}
    assert left({IDENTIFY: 100, EMBED: 60}, paces, {IDENTIFY: 200, EMBED: 100}) == pytest.approx(60 / 2)


def test_nothing_is_said_before_enough_was_seen():
    assert left({EMBED: 5}, {}) is None
    assert left({EMBED: 5}, {EMBED: steady(1, slices=2)}) is None
    assert left({EMBED: 5, OCR: 1}, {EMBED: steady(1)}) is None  # one page may take as long as all the rest
    assert left({IDENTIFY: 5}, {EMBED: steady(1)}) is None


def test_one_large_group_is_enough():
    assert left({EMBED: 50}, {EMBED: Pace(((50.0, 100),), 100)}) == pytest.approx(25)
    assert left({EMBED: 50}, {EMBED: Pace(((50.0, 30),), 30)}) is None


def test_nothing_is_said_while_the_pace_leaps():
    wild = Pace(((5.0, 1), (5.0, 400), (5.0, 2)), 403)
    assert left({EMBED: 5}, {EMBED: wild}) is None


def test_nothing_left_is_no_time():
    assert left({}, {}) == 0.0
    assert left({EMBED: 0}, {}) == 0.0


def test_several_jobs_at_once_are_one_time_at_work():
    meter = PaceMeter()
    meter.begin([EMBED] * 8, now=0.0)
    assert meter.active == {EMBED: 8}
    meter.end([EMBED] * 8, now=5.0)
    meter.begin([EMBED], now=100.0)  # idle for long: that is no work
    meter.end([EMBED], now=101.0)
    pace = meter.paces()[EMBED]
    assert (pace.slices, pace.ended) == (((5.0, 8),), 9)


@given(st.lists(st.tuples(st.floats(0.001, 20), st.integers(1, 40)), min_size=30, max_size=80))
def test_the_measured_seconds_and_jobs_are_never_more_than_there_were(work):
    meter, now = PaceMeter(), 0.0
    for took_s, jobs in work:
        meter.begin([EMBED] * jobs, now=now)
        now += took_s
        meter.end([EMBED] * jobs, now=now)
    pace = meter.paces()[EMBED]
    assert sum(busy for busy, _ in pace.slices) <= now + 1e-6
    assert sum(count for _, count in pace.slices) <= sum(jobs for _, jobs in work) == pace.ended
    assert not meter.active
