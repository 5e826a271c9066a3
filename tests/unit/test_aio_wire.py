"""Frames come back as they went, and nonsense is refused before it is believed."""

from __future__ import annotations

import asyncio
import random
import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.aio import backoff, wire

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


async def read(data: bytes):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await wire.read_frame(reader)


@given(args=st.dictionaries(st.text(), PLAIN, max_size=5), body=st.binary(max_size=2000))
async def test_every_frame_comes_back_as_it_went(args, body):
    header = {"id": 7, "args": args}
    assert await read(b"".join(bytes(part) for part in wire.encode(header, body))) == (header, body)


async def test_file_names_that_are_no_text_survive():
    name = b"caf\xe9.txt".decode(errors="surrogateescape")
    header, _ = await read(b"".join(wire.encode({"id": 1, "path": name})))
    assert header["path"] == name


@given(data=st.binary(min_size=8, max_size=200))
async def test_noise_is_an_error_never_a_frame_and_never_a_huge_read(data):
    try:
        header, body = await read(data)
    except (wire.WireError, asyncio.IncompleteReadError):
        return
    assert isinstance(header["id"], int)  # noise can be a frame by chance: then it is one of ours
    assert len(body) <= len(data)


@pytest.mark.parametrize(
    "header", [b"\x93\x01\x02\x03", msgpack.packb({"no": "id"}), msgpack.packb({"id": "x"}), b"\xc1"]
)
async def test_a_header_without_an_id_is_refused(header):
    with pytest.raises(wire.WireError):
        await read(struct.pack("<II", len(header), 0) + header)


async def test_a_garbled_length_is_refused_before_memory_is_taken():
    with pytest.raises(wire.WireError, match="out of range"):
        await read(struct.pack("<II", 2**31, 5))


@given(
    error=st.sampled_from(
        [
            errors.RetryLater("a", after_s=3),
            errors.BadAsset("b", hint="c"),
            errors.Bug("d"),
            errors.Misconfigured("e", key="k", hint="h"),
            errors.NotFound("f"),
            errors.BadRequest("g"),
        ]
    )
)
def test_our_errors_cross_as_themselves(error):
    back = errors.from_wire(errors.to_wire(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)


def test_foreign_errors_cross_as_bugs_with_their_kind():
    assert str(errors.from_wire(errors.to_wire(KeyError("x")))) == "KeyError: 'x'"


@given(attempt=st.integers(1, 10**6), base_s=st.floats(0.001, 100), cap_s=st.floats(0.001, 10_000), seed=st.integers())
def test_a_wait_is_never_beyond_one_and_a_half_times_its_cap(attempt, base_s, cap_s, seed):
    wait_s = backoff.delay_s(attempt, base_s=base_s, cap_s=cap_s, spread=random.Random(seed))
    assert 0 < wait_s <= 1.5 * cap_s
