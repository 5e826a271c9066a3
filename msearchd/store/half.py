"""float32 to float16 and back, of numbers and of entries of sparse vectors, without numpy: the daemon has none.

A normalised vector keeps its direction to a cosine of 0.9999999 (11 bits of each component), in half the bytes.
"""

from __future__ import annotations

import struct


def to_half(data: bytes | memoryview) -> bytes | None:
    """float16 of float32 *data*, little-endian; None where a number has no float16 (not finite, or above 65504)."""
    count = len(data) // 4
    numbers = struct.unpack(f"<{count}f", data)
    try:
        half = struct.pack(f"<{count}e", *numbers)
    except OverflowError:
        return None
    total = sum(numbers)
    return half if total - total == 0 else None  # not a number, or infinite


def from_half(data: bytes) -> bytes:
    """float32 of float16 *data*, little-endian."""
    count = len(data) // 2
    return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", data))


def entries_to_half(data: bytes | memoryview) -> bytes | None:
    """(uint32, float16) of (uint32, float32) entries *data*, little-endian; None where a weight has no float16."""
    count = len(data) // 8
    numbers = struct.unpack("<" + "If" * count, data)
    try:
        half = struct.pack("<" + "Ie" * count, *numbers)
    except OverflowError:
        return None
    total = sum(numbers[1::2])
    return half if total - total == 0 else None


def entries_from_half(data: bytes) -> bytes:
    """(uint32, float32) of (uint32, float16) entries *data*, little-endian."""
    count = len(data) // 6
    return struct.pack("<" + "If" * count, *struct.unpack("<" + "Ie" * count, data))
