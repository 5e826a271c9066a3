"""float16 keeps what a search needs of a vector."""

import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.store.half import entries_from_half, entries_to_half, from_half, to_half


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


def test_entries_of_sparse_vectors_keep_their_dimensions_and_eleven_bits_of_their_weights():
    row = [(0, 0.5), (7, 1.0009765625), (4_000_000_000, 2.71828)]
    data = b"".join(struct.pack("<If", *entry) for entry in row)
    half = entries_to_half(data)
    assert half is not None
    assert len(half) == 6 * len(row)
    back = list(struct.iter_unpack("<If", entries_from_half(half)))
    assert [dimension for dimension, _ in back] == [dimension for dimension, _ in row]
    assert [weight for _, weight in back] == pytest.approx([weight for _, weight in row], rel=2**-11)
    assert entries_to_half(b"") == b""
    for bad in (float("nan"), float("inf"), 1e6):
        assert entries_to_half(struct.pack("<If", 1, bad)) is None
