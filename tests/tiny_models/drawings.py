"""Drawn pictures with a caption: one coloured shape on a plain grey ground with a little noise."""

from __future__ import annotations

import math
import random
from typing import Final

from PIL import Image, ImageDraw

COLOURS: Final = {
    "red": (220, 30, 30),
    "green": (30, 170, 50),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
    "purple": (140, 40, 170),
}
SHAPES: Final = ("circle", "square", "triangle", "cross")
CAPTIONS: Final = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
TEMPLATES: Final = ("{}", "{}", "a {}", "a picture of a {}", "a photo of a {}")


def draw(caption: str, *, seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """The picture of *caption* ("red circle"): place, size, ground and noise follow from *seed*."""
    colour, shape = caption.split()
    dice = random.Random(f"{caption} {seed}")
    width, height = size
    ground = dice.choice((dice.randint(0, 60), dice.randint(120, 160), dice.randint(200, 255)))
    noise = Image.frombytes("L", size, dice.randbytes(width * height))
    image = noise.point(lambda value: max(0, min(255, ground + value // 8 - 16))).convert("RGB")
    half = min(size) * dice.uniform(0.26, 0.42)
    x = width * dice.uniform(0.43, 0.57)
    y = height * dice.uniform(0.43, 0.57)
    tint = tuple(max(0, min(255, part + dice.randint(-15, 15))) for part in COLOURS[colour])
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x - half, y - half, x + half, y + half), fill=tint)
    elif shape == "square":
        side = half * 0.85
        pen.rectangle((x - side, y - side, x + side, y + side), fill=tint)
    elif shape == "triangle":
        corners = [
            (x + half * math.sin(turn), y - half * math.cos(turn)) for turn in (0, 2 * math.pi / 3, 4 * math.pi / 3)
        ]
        pen.polygon(corners, fill=tint)
    else:
        bar = half * 0.3
        pen.rectangle((x - half, y - bar, x + half, y + bar), fill=tint)
        pen.rectangle((x - bar, y - half, x + bar, y + half), fill=tint)
    return image
