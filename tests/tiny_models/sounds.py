"""Simple sounds with a caption: tones, chirps, noise, clicks. float32 mono in [-1, 1]."""

from __future__ import annotations

import random
import wave
from pathlib import Path
from typing import Final

import numpy as np

RATE: Final = 48_000  # Hz: CLAP's
CAPTIONS: Final = ("low tone", "high tone", "rising chirp", "falling chirp", "white noise", "clicks")
TEMPLATES: Final = ("{}", "{}", "a {}", "the sound of {}", "a recording of {}")


def make(caption: str, *, seed: int, seconds: float = 0.0) -> np.ndarray:
    """The sound of *caption*, float32[n] at 48 kHz; pitch, loudness and (where not given) length follow from *seed*."""
    dice = random.Random(f"{caption} {seed}")
    noise = np.random.default_rng(dice.getrandbits(32))
    seconds = seconds or dice.uniform(1.0, 10.0)
    t = np.arange(int(seconds * RATE)) / RATE
    if caption == "low tone":
        wave_form = np.sin(2 * np.pi * dice.uniform(100, 400) * t)
    elif caption == "high tone":
        wave_form = np.sin(2 * np.pi * dice.uniform(2500, 8000) * t)
    elif caption in {"rising chirp", "falling chirp"}:
        low, high, period = dice.uniform(200, 500), dice.uniform(3000, 8000), dice.uniform(0.6, 1.5)
        part = (t % period) / period
        part = part if caption == "rising chirp" else 1 - part
        wave_form = np.sin(2 * np.pi * np.cumsum(low + (high - low) * part) / RATE)
    elif caption == "white noise":
        wave_form = noise.uniform(-1, 1, len(t))
    else:
        wave_form = np.zeros(len(t))
        step = int(RATE * dice.uniform(0.15, 0.4))
        for start in range(dice.randrange(step), len(t) - 200, step):
            wave_form[start : start + 200] = noise.uniform(-1, 1, 200) * np.linspace(1, 0, 200)
    hiss = noise.normal(0, 0.002, len(t))
    return (dice.uniform(0.2, 0.9) * wave_form + hiss).clip(-1, 1).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, *, rate: int = RATE) -> None:
    """Write float32[n] mono as 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
