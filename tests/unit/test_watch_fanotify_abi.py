"""fanotify's events as bytes."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from msearchd.watch.sources import fanotify_abi as abi


def event(mask, file_system=7, handle=b"\x08\0\0\0\x01\0\0\0abcdefgh", name=b"a.txt", *, before=b""):
    body = handle + name + b"\0"
    body += b"\0" * (-(len(body) + 12) % 4)
    info = struct.pack("=BBHQ", 2, 0, 12 + len(body), file_system) + body
    return struct.pack("=IBBHQii", 24 + len(before) + len(info), 3, 0, 24, mask, -1, 1) + before + info


def test_an_event_names_its_directory_by_handle_and_the_entry_by_name():
    found = list(abi.parse(event(abi.CREATE) + event(abi.DELETE | abi.ONDIR, name=b"\xff")))
    assert found == [
        abi.Event(abi.CREATE, 7, b"\x08\0\0\0\x01\0\0\0abcdefgh", b"a.txt"),
        abi.Event(abi.DELETE | abi.ONDIR, 7, b"\x08\0\0\0\x01\0\0\0abcdefgh", b"\xff"),
    ]


def test_other_records_before_the_name_are_passed_over():
    other = struct.pack("=BBHI", 4, 0, 8, 5)
    assert [e.name for e in abi.parse(event(abi.CREATE, before=other + b"\0" * 0))] == [b"a.txt"]


def test_an_overflow_names_no_directory():
    overflow = struct.pack("=IBBHQii", 24, 3, 0, 24, abi.Q_OVERFLOW, -1, 0)
    assert list(abi.parse(overflow)) == [abi.Event(abi.Q_OVERFLOW, 0, b"", b"")]


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_read_to_their_end(buffer):
    for found in abi.parse(buffer):
        assert isinstance(found.name, bytes)
