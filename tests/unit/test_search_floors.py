"""Levels of chance: pure parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.space import Vectors
from msearchd.search.floors import floor_of, level_of, probes
from msearchd.store.catalog.question import STOP_WORDS


def test_made_up_questions_are_the_same_everywhere_and_no_words():
    assert probes() == probes()
    assert len(set(probes())) == 32
    assert {len(one.split()) for one in probes()} == {1, 2, 3, 4}
    assert not {word for one in probes() for word in one.split()} & STOP_WORDS


def test_a_level_of_one_is_no_level():
    assert floor_of([]) == floor_of([0.4]) == float("-inf")


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=40))
def test_a_floor_is_never_below_the_mean_of_chance(levels):
    assert floor_of(levels) >= sum(levels) / len(levels) - 1e-9


def test_long_and_short_questions_of_a_multi_vector_model_are_on_one_scale():
    short, long = Vectors(b"\0" * 16, 2, 2, rows=(2,)), Vectors(b"\0" * 64, 8, 2, rows=(8,))
    assert level_of(1.0, short) == level_of(4.0, long) == pytest.approx(0.5)
    assert level_of(0.7, Vectors(b"\0" * 8, 1, 2)) == 0.7
