"""Sound files for tests, made by ffmpeg and by the wave module."""

from __future__ import annotations

import math
import struct
import subprocess
import wave
from pathlib import Path


def write_tone(path: Path, *, hz: float = 440.0, seconds: float = 3.0, rate: int = 44100, channels: int = 1) -> Path:
    """A sine wave as 16-bit PCM."""
    frames = (
        int(12000 * math.sin(2 * math.pi * hz * i / rate)) for i in range(int(seconds * rate)) for _ in range(channels)
    )
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(struct.pack(f"<{int(seconds * rate) * channels}h", *frames))
    return path


def encoded(source: Path, target: Path, **tags: str) -> Path:
    """*source* in the format that the name of *target* says, with tags."""
    words = [part for key, value in tags.items() for part in ("-metadata", f"{key}={value}")]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", str(source), *words, str(target)], check=True, stdin=subprocess.DEVNULL
    )
    return target
