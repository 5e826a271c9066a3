"""Vectors without numpy: cut to fewer dimensions, normalised again. Pure."""

from __future__ import annotations

import math
import sys
from array import array

_SWAPPED = sys.byteorder == "big"


def numbers(row: bytes | memoryview) -> array[float]:
    """*row* (float32, little-endian) as numbers."""
    found = array("f")
    found.frombytes(bytes(row))
    if _SWAPPED:
        found.byteswap()
    return found


def packed(values: array[float]) -> bytes:
    """Numbers as float32, little-endian."""
    if _SWAPPED:
        values = values[:]
        values.byteswap()
    return values.tobytes()


def shortened(row: bytes | memoryview, *, dim: int) -> bytes:
    """The first *dim* numbers of a vector with length 1 again (Matryoshka representations, arXiv:2205.13147).

    A vector whose head is all zero stays so: it has no direction.
    """
    head = numbers(row)[:dim]
    norm = math.sqrt(math.fsum(value * value for value in head))
    return packed(array("f", (value / norm for value in head)) if norm > 0 else head)
