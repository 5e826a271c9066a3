"""Text in pixels (rapidocr, PP-OCR models that the package brings along; nothing is fetched). Child side.

In: a picture, or a page of a PDF. Out: lines in reading order whose confidence is high enough. One thread.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any, Final

from msearchd import errors
from msearchd.media import image, parser
from msearchd.media.extractor import ReadRules
from msearchd.media.source import Source

#: Below it PP-OCR reads texture as letters: a guess, see tests/integration/test_media_ocr.py.
_MIN_CONFIDENCE: Final = 0.6
#: Longer side of what the models see: rapidocr's own limit, so it is scaled once. A4 at 200 dpi loses little by it.
_MAX_SIDE: Final = 2000
_PAGE_DPI: Final = 200

Box = Sequence[Sequence[float]]  # four corners (x, y), clockwise from the upper left


def read_picture(source: Source, rules: ReadRules) -> tuple[str, str]:
    """Text of a picture file, and a note. Raises BadAsset where it cannot be decoded, Misconfigured without
    rapidocr.
    """
    with source.stream() as stream, image.opened_picture(stream) as picture:
        pixels, note = image.upright(picture, max_side=_MAX_SIDE, rules=rules)
    return _read(pixels), note


def read_page(source: Source, page: int, rules: ReadRules) -> tuple[str, str]:
    """Text of page *page* (from 1) of a PDF, rendered at 200 dpi, and a note."""
    with io.BytesIO(render(source, page)) as stream, image.opened_picture(stream) as picture:
        pixels, note = image.upright(picture, max_side=_MAX_SIDE, rules=rules)
    return _read(pixels), note


def in_reading_order(boxes: Sequence[Box], texts: Sequence[str]) -> str:
    """Lines from top to bottom; boxes that stand side by side share a line, from left to right; a wide gap is a
    blank line.
    """
    items = sorted(
        (_Line(box, text) for box, text in zip(boxes, texts, strict=True)), key=lambda item: (item.middle, item.left)
    )
    rows: list[list[_Line]] = []
    for item in items:
        if rows and item.middle - rows[-1][0].middle < 0.5 * min(item.height, rows[-1][0].height):
            rows[-1].append(item)
        else:
            rows.append([item])
    text, bottom = "", 0.0
    for row in rows:
        height = max(item.height for item in row)
        top = min(item.top for item in row)
        if text:
            text += "\n\n" if top - bottom > 1.5 * height else "\n"
        text += " ".join(item.text for item in sorted(row, key=lambda item: item.left))
        bottom = max(item.bottom for item in row)
    return text


class _Line:
    __slots__ = ("bottom", "height", "left", "middle", "text", "top")

    def __init__(self, box: Box, text: str) -> None:
        ys = [float(corner[1]) for corner in box]
        self.left = min(float(corner[0]) for corner in box)
        self.top, self.bottom = min(ys), max(ys)
        self.middle, self.height = (self.top + self.bottom) / 2, max(1.0, self.bottom - self.top)
        self.text = text


def _read(pixels: Any) -> str:
    low, high = pixels.convert("L").getextrema()
    if high - low < 32:
        return ""  # a blank page: no need to wake the models
    import numpy as np

    found = _models()(np.asarray(pixels)[:, :, ::-1])  # BGR, as OpenCV has it
    if found.txts is None or found.boxes is None:
        return ""
    kept = [
        (box, text)
        for box, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
        if score >= _MIN_CONFIDENCE and text.strip()
    ]
    return in_reading_order([box for box, _ in kept], [text for _, text in kept])


@functools.cache
def _models() -> Any:
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        message = "OCR is not installed"
        raise errors.Misconfigured(
            message,
            key="engine:ocr",
            hint="type: pip install 'msearchd[documents]'; or set ocr = false under [extract]",
        ) from error
    threads = {f"EngineConfig.onnxruntime.{name}_op_num_threads": 1 for name in ("intra", "inter")}
    return RapidOCR(params={"Global.log_level": "error", "Global.text_score": _MIN_CONFIDENCE, **threads})


def render(source: Source, page: int) -> bytes:
    """Page *page* (from 1) of a PDF as a picture file, at 200 dpi. Raises BadAsset where it cannot be drawn."""
    kreuzberg = parser.library()
    try:
        # By descriptor: the path may be no UTF-8, and may by now be another file.
        return bytes(kreuzberg.render_pdf_page(f"/dev/fd/{source.fd}", page - 1, dpi=_PAGE_DPI))
    except MemoryError:
        raise
    except Exception as error:
        message = f"page {page} cannot be drawn: {' '.join(str(error).split())[:200]}"
        raise errors.BadAsset(message) from error
