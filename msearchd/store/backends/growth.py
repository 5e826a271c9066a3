"""When a space is quantized and how large its segments grow: pure arithmetic.

The engine computes with its interpreter locked, so nothing else of the store process runs during one `optimize()`. It
is
therefore called often enough that each call stays short: about 50 microseconds a point that is not yet quantized
(16,384 points of 384 dimensions: 0.8 s), and segments are never merged with one another while points flow in.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Points quantized by one call once a space is large. Half of it costs 0.45 s a call, and twice as many segments to
#: search
#: (each costs a search about 0.15 ms); bench/store_bench.py.
UNIT_POINTS = 16_384
_BYTES_PER_NUMBER = 4
_KIB = 1024


@dataclass(frozen=True, slots=True)
class SegmentSizes:
    """The engine's tunables, in the engine's unit: KiB of vectors in one segment."""

    indexing_threshold_kib: int  # a segment above it is quantized at the next optimize()
    max_segment_kib: int  # merges never build a larger one


def unit_points(quantize_above: int) -> int:
    """Points that one optimize() takes at most, once the space is quantized at all."""
    return min(quantize_above, UNIT_POINTS)


def segment_sizes(*, dim: int, quantize_above: int) -> SegmentSizes:
    """Segment sizes for vectors of *dim* float32 numbers.

    Half a unit is the threshold: the engine spreads points over appendable segments, and each must pass it.
    """
    bytes_per_point = dim * _BYTES_PER_NUMBER
    threshold = unit_points(quantize_above) // 2 * bytes_per_point // _KIB
    largest = 4 * max(quantize_above, UNIT_POINTS) * bytes_per_point // _KIB
    return SegmentSizes(max(1, threshold), max(2, largest))


def wants_optimize(*, points: int, unquantized: int, quantize_above: int) -> bool:
    """True when a space is large enough to be quantized and a whole unit of it is not."""
    return points > quantize_above and unquantized >= unit_points(quantize_above)


def load_deadline_s(disk_bytes: int) -> float:
    """Seconds that loading may take before the files count as damaged (a flipped byte can hang it for ever).

    Measured: 0.4 s for 100k points (240 MB), 7 s with 64 MB of unflushed log on a busy machine; ten times that.
    """
    return 20.0 + disk_bytes / 20e6
