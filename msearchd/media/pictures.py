"""Pictures for models: a picture file or a page of a PDF as upright RGB pixels. Child side.

In: an open file. Out: a Picture, shrunk as far as no model here sees a difference: the shorter side is *short_side* (or
what it was, if that is less), the longer one at most eight times that.
"""

from __future__ import annotations

import io
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Picture
from msearchd.media import image, ocr
from msearchd.media.extractor import ReadRules
from msearchd.media.source import Source

#: A panorama keeps its shape up to this; beyond it a model's square would show a line.
_LONGEST: Final = 8


def picture(source: Source, rules: ReadRules, *, page: int | None, short_side: int) -> Picture:
    """Pixels of a picture file (*page* None) or of page *page* (from 1) of a PDF.

    Raises BadAsset where it cannot be decoded or has more pixels than the limit, Misconfigured without the decoders.
    """
    if page is not None:
        with io.BytesIO(ocr.render(source, page)) as stream:
            return _decoded(stream, rules, short_side)
    with source.stream() as stream:
        return _decoded(stream, rules, short_side)


def _decoded(stream: Any, rules: ReadRules, short_side: int) -> Picture:
    with image.opened_picture(stream) as opened:
        width, height = opened.size
        if width < 1 or height < 1:
            raise errors.BadAsset("the picture has no pixels")
        # The side that the shorter one would have beyond the limit of shapes is cut by the longer one's bound.
        longest = min(short_side * max(width, height) // min(width, height), _LONGEST * short_side)
        pixels, _ = image.upright(opened, max_side=max(1, longest), rules=rules)
        return Picture(pixels.width, pixels.height, pixels.tobytes())
