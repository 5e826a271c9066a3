"""float16 keeps what a search needs of a vector."""

import math
import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.half import from_half, to_half


def normalised(numbers):
    length = math.sqrt(sum(x * x for x in numbers))
    return [x / length for x in numbers]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


vectors = (
    st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=384)
    .filter(lambda numbers: sum(x * x for x in numbers) > 1e-3)
    .map(normalised)
)


@given(vectors)
def test_a_normalised_vector_always_keeps_its_direction(numbers):
    back = array("f", from_half(to_half(array("f", numbers).tobytes())))
    assert cosine(numbers, back) >= 0.9999


@given(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), max_size=64))
def test_what_is_a_float16_already_comes_back_as_it_was(numbers):
    data = array("f", numbers).tobytes()
    assert from_half(to_half(data)) == data


def test_what_no_float16_can_hold_is_refused():
    for number in (math.nan, math.inf, -math.inf, 65520.0):
        assert to_half(struct.pack("<2f", 0.5, number)) is None
