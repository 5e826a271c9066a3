"""What a model eats: a passage, a picture, a sound, or a pair to be compared.

All are decoded before they reach a model: corrupt bytes never do. Bytes are raw, so that the daemon needs no numpy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels, upright: RGB, 8 bits each, row-major, `width * height * 3` bytes."""

    width: int
    height: int
    rgb: bytes

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or len(self.rgb) != self.width * self.height * 3:
            message = f"{len(self.rgb)} bytes are not {self.width} x {self.height} RGB pixels"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Sound:
    """Mono samples in [-1, 1]: float32, little-endian, `rate` a second."""

    rate: int
    pcm: bytes

    def __post_init__(self) -> None:
        if self.rate < 1 or len(self.pcm) % 4:
            message = f"{len(self.pcm)} bytes at {self.rate} Hz are no float32 sound"
            raise ValueError(message)

    @property
    def duration_ms(self) -> int:
        """Length in milliseconds, rounded down."""
        return len(self.pcm) // 4 * 1000 // self.rate


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a text whose relevance to it is asked for."""

    query: str
    text: str


#: One call has samples of one kind.
Sample = str | Picture | Sound | Pair


@dataclass(frozen=True, slots=True)
class TimedText:
    """Speech as text, in milliseconds from the start of the sound."""

    t0_ms: int
    t1_ms: int
    text: str
