"""Decoded samples as the model libraries take them: Picture -> PIL.Image, Sound -> float32[n].

In: values of domain/sample.py. Out: an object that owns its bytes. Refuses with a sentence what a model would misread;
never opens a file or an address, never resamples.
"""

from __future__ import annotations

from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Picture, Sound

#: Beside a strip of 1 x 5000 pixels, "shortest edge to 224" asks for a million columns; models look at the middle.
_LONGEST_STRIP: Final = 20
#: Image processors guess where the colours are: 3 rows, or one, they take for channels.
_LEAST_PIXELS: Final = 16
_PATCH: Final = 16


def as_image(picture: Picture) -> Any:
    """The PIL.Image (RGB) of *picture*; a longer strip than 20:1 is cut to its middle, a speck enlarged to 16 pixels."""
    from PIL import Image

    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    width, height = image.size
    widest, highest = height * _LONGEST_STRIP, width * _LONGEST_STRIP
    if width > widest or height > highest:
        across, down = min(width, widest), min(height, highest)
        left, top = (width - across) // 2, (height - down) // 2
        image = image.crop((left, top, left + across, top + down))
    if min(image.size) < _LEAST_PIXELS:
        grow = -(-_LEAST_PIXELS // min(image.size))
        image = image.resize((image.width * grow, image.height * grow))
    return image


def patches(width: int, height: int) -> int:
    """The cost of a picture of so many pixels: patches of 16 x 16, at least one."""
    return max(1, width * height // (_PATCH * _PATCH))


def as_samples(sound: Sound, *, rate: int, longest_s: float) -> Any:
    """float32[n] of *sound*. Raises BadAsset for another rate than *rate*, for more than *longest_s*, for no sound."""
    import numpy as np

    if sound.rate != rate:
        message = f"the sound has {sound.rate} samples a second, the model takes {rate}"
        raise errors.BadAsset(message, hint=f"resample it to {rate} Hz, mono")
    samples = np.frombuffer(sound.pcm, dtype="<f4")
    if not len(samples):
        message = "the sound is empty"
        raise errors.BadAsset(message)
    if longest_s and len(samples) > rate * longest_s:
        # Longer ones the model's own processor cuts at a random place: never the same vector twice (measured).
        message = (
            f"the sound has {len(samples)} samples, the model hears {longest_s:g} s ({int(rate * longest_s)} samples)"
        )
        raise errors.BadAsset(message, hint=f"cut it into windows of at most {longest_s:g} s")
    if not np.isfinite(samples).all():
        message = "the sound has samples that are no number"
        raise errors.BadAsset(message)
    return samples.astype(np.float32)  # a copy: the wire's buffer is read-only, and torch warns of that


def frames(samples: int, rate: int) -> int:
    """The cost of so many samples: frames of 10 ms, at least one."""
    return max(1, samples * 100 // rate)
