"""One framed wire for every child process: `<u32 header length><u32 body length><msgpack header><raw body>`.

In: a header of plain values and raw bytes (vectors as float32, never JSON). Out: the same on the other side.
Never imports the daemon: children under another interpreter load this file, errors.py and their own worker code alone.

Request header:  {"id": int > 0, "op": str, "lane": int, "args": {...}}
Reply header:    {"id": int, "ok": bool, "more": bool, "args": {...}} or {"id", "ok": False, "error": {...}}
Frame id 0 is the hello (parent to child, with the start arguments) and the ready answer (child to parent).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgpack

if TYPE_CHECKING:
    import asyncio
    import socket

#: Searches and other things that somebody waits for form the next turn of a child; the rest queues behind.
LANE_INTERACTIVE: Final = 0
LANE_BULK: Final = 1

_LENGTHS: Final = struct.Struct("<II")
#: Guards against a garbled length, not a budget: the largest real frame is a batch of page multi-vectors (17 MB).
MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024 * 1024

Header = dict[str, Any]


class WireError(Exception):
    """The other side sent something that is no frame; the connection is unusable."""


def encode(header: Header, body: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """Frame *header* and *body* as buffers to write in order (the body is not copied)."""
    packed = msgpack.packb(header, use_bin_type=True, unicode_errors="surrogateescape")
    return (
        [_LENGTHS.pack(len(packed), len(body)) + packed, body]
        if len(body)
        else [_LENGTHS.pack(len(packed), 0) + packed]
    )


def _decode_header(packed: bytes | memoryview) -> Header:
    try:
        header = msgpack.unpackb(packed, raw=False, strict_map_key=False, unicode_errors="surrogateescape")
    except Exception as error:  # msgpack raises ValueError, its own kinds and UnicodeDecodeError
        message = f"the frame header cannot be read: {error}"
        raise WireError(message) from error
    if not isinstance(header, dict) or not isinstance(header.get("id"), int):
        message = "the frame header is no map with an id"
        raise WireError(message)
    return header


def _checked(header_len: int, body_len: int) -> tuple[int, int]:
    if header_len > MAX_HEADER_BYTES or body_len > MAX_BODY_BYTES:
        message = f"frame lengths {header_len} and {body_len} are out of range"
        raise WireError(message)
    return header_len, body_len


async def read_frame(reader: asyncio.StreamReader) -> tuple[Header, bytes]:
    """Read one frame. Raises asyncio.IncompleteReadError when the peer is gone, WireError when it talks nonsense."""
    header_len, body_len = _checked(*_LENGTHS.unpack(await reader.readexactly(_LENGTHS.size)))
    header = _decode_header(await reader.readexactly(header_len))
    return header, (await reader.readexactly(body_len) if body_len else b"")


def recv_exactly(sock: socket.socket, count: int) -> memoryview:
    """Read *count* bytes from a blocking socket. Raises EOFError when the peer is gone."""
    buffer = memoryview(bytearray(count))
    have = 0
    while have < count:
        got = sock.recv_into(buffer[have:])
        if got == 0:
            raise EOFError
        have += got
    return buffer


def recv_frame(sock: socket.socket) -> tuple[Header, memoryview]:
    """Read one frame from a blocking socket. Raises EOFError when the peer is gone."""
    header_len, body_len = _checked(*_LENGTHS.unpack(recv_exactly(sock, _LENGTHS.size)))
    header = _decode_header(recv_exactly(sock, header_len))
    return header, recv_exactly(sock, body_len)


def send_frame(sock: socket.socket, header: Header, body: bytes | memoryview = b"") -> None:
    """Write one frame to a blocking socket."""
    for part in encode(header, body):
        sock.sendall(part)
