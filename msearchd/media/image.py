"""Pictures: metadata of the file (EXIF camera, time, place; size) and decoding with limits. Child side.

In: an open picture. Out: a Reading without text (its pixels are OCR's), or a decoded picture, upright and shrunk.
The header alone is read for metadata: a 300-megapixel file costs nothing until somebody asks for its pixels.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

from msearchd import errors
from msearchd.domain.media import Segment, SegmentKind
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import FileType
from msearchd.media.source import Source

#: Smaller pictures (icons, tracking pixels) hold no text that a person could read.
_MIN_OCR_SIDE: Final = 24
#: Thinner ones (lines, spacers, tracking pixels) show nothing.
_MIN_SEEN_SIDE: Final = 8
_EXIF, _GPS = 0x8769, 0x8825
#: EXIF 2.32, tables 4 to 8.
_MAKE, _MODEL, _DESCRIPTION, _SOFTWARE, _ARTIST, _COPYRIGHT, _ORIENTATION, _TIME = (
    0x010F,
    0x0110,
    0x010E,
    0x0131,
    0x013B,
    0x8298,
    0x0112,
    0x0132,
)
_TAKEN, _OFFSET, _LENS, _ISO, _EXPOSURE, _APERTURE, _FOCAL, _COMMENT = (
    0x9003,
    0x9011,
    0xA434,
    0x8827,
    0x829A,
    0x829D,
    0x920A,
    0x9286,
)


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """Read a picture's metadata. Raises BadAsset where its header is damaged or its format unknown."""
    with source.stream() as stream, opened_picture(stream) as picture:
        width, height = picture.size
        metadata = {
            "format": picture.format,
            "mode": picture.mode,
            "frames": getattr(picture, "n_frames", 1),
            **_exif_facts(picture),
            **_text_chunks(picture),
        }
        if metadata.pop("is_sideways", False):
            width, height = height, width
        metadata |= {"width": width, "height": height}
    if width * height > rules.max_image_pixels:
        return Reading(metadata=metadata, note=too_large(width, height, rules))
    is_readable = min(width, height) >= _MIN_OCR_SIDE
    places = [Segment(SegmentKind.IMAGE, 0)] if min(width, height) >= _MIN_SEEN_SIDE else []
    return Reading(metadata=metadata, wants_ocr=rules.ocr and is_readable, places=places)


def too_large(width: int, height: int, rules: ReadRules) -> str:
    """Sentence for a picture beyond the pixel limit."""
    return f"{width} x {height} pixels are more than the limit of {rules.max_image_pixels:,}: its pixels are not read"


@contextlib.contextmanager
def opened_picture(stream: IO[bytes]) -> Iterator[Any]:
    """A PIL image of *stream*, header read. Translates what decoders raise inside, into BadAsset or Misconfigured."""
    try:
        from PIL import Image
    except ImportError as error:
        message = "the picture decoder is not installed"
        raise errors.Misconfigured(
            message, key="engine:documents", hint="type: pip install 'msearchd[documents]'"
        ) from error
    Image.MAX_IMAGE_PIXELS = None  # our own limit is asked before pixels are decoded, and does not warn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn about damage that they read past
            with Image.open(stream) as picture:
                yield picture
    except (errors.MsearchError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, KeyError, ...
        message = f"the picture is damaged: {_said(error)}"
        raise errors.BadAsset(message) from error


def _said(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":  # it names our stream, which says nothing to a person
        return "its beginning is that of no known kind of picture"
    return str(error) or type(error).__name__


def upright(picture: Any, *, max_side: int, rules: ReadRules) -> tuple[Any, str]:
    """Pixels as RGB, turned as EXIF says, the longer side at most *max_side*; and a note where its end is missing.

    JPEG is shrunk while decoding. Raises BadAsset beyond the pixel limit; transparent parts become white.
    """
    from PIL import Image, ImageFile, ImageOps

    width, height = picture.size
    if width * height > rules.max_image_pixels:
        raise errors.BadAsset(too_large(width, height, rules))
    # Shrink by less than would show: twice the wanted size is kept for a good resampling.
    picture.draft("RGB", (2 * max_side, 2 * max_side))
    note = ""
    try:
        picture.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        note = "its end is missing; the part that is there was read"
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            picture.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    turned = ImageOps.exif_transpose(picture)
    turned.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    if turned.mode in {"RGBA", "LA", "PA"} or "transparency" in turned.info:
        layer = turned.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB"), note
    return turned.convert("RGB"), note


def _exif_facts(picture: Any) -> dict[str, Any]:
    """Camera, lens, time, place and words of the EXIF block; {} where it is damaged, for it is an extra."""
    try:
        exif = picture.getexif()
        detail, gps = dict(exif.get_ifd(_EXIF)), dict(exif.get_ifd(_GPS))
        main = dict(exif)
    except Exception:  # noqa: BLE001 - damaged EXIF must not cost the picture
        return {}
    make, model = _word(main.get(_MAKE)), _word(main.get(_MODEL))
    camera = model if make and model.lower().startswith(make.split()[0].lower()) else f"{make} {model}".strip()
    latitude, longitude = _degrees(gps, 1), _degrees(gps, 3)
    has_place = latitude is not None and longitude is not None
    return {
        "camera": camera,
        "lens": _word(detail.get(_LENS)),
        "taken": _time(detail.get(_TAKEN) or main.get(_TIME), detail.get(_OFFSET)),
        "description": _word(main.get(_DESCRIPTION)),
        "author": _word(main.get(_ARTIST)),
        "copyright": _word(main.get(_COPYRIGHT)),
        "software": _word(main.get(_SOFTWARE)),
        "iso": _number(detail.get(_ISO)),
        "exposure_s": _number(detail.get(_EXPOSURE)),
        "aperture": _number(detail.get(_APERTURE)),
        "focal_mm": _number(detail.get(_FOCAL)),
        "latitude": latitude if has_place else None,
        "longitude": longitude if has_place else None,
        "is_sideways": main.get(_ORIENTATION) in {5, 6, 7, 8},
    }


def _text_chunks(picture: Any) -> dict[str, Any]:
    """Title, author, description of PNG text chunks and GIF comments."""
    words = {
        "Title": "title",
        "Author": "author",
        "Description": "description",
        "Comment": "comment",
        "comment": "comment",
    }
    found = {}
    for key, name in words.items():
        value = picture.info.get(key)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str) and value.strip():
            found[name] = value
    return found


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.replace("\0", " ").strip() if isinstance(value, str) else ""


def _number(value: Any) -> float | int | None:
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else round(number, 6)


def _time(value: Any, offset: Any) -> str:
    """EXIF's 2024:03:01 12:30:00 as 2024-03-01T12:30:00, with the zone where the camera knew it."""
    text = _word(value)
    if len(text) < 19 or text.startswith("0000"):
        return ""
    return text[:10].replace(":", "-") + "T" + text[11:19] + _word(offset)


def _degrees(gps: Mapping[int, Any], reference: int) -> float | None:
    """Decimal degrees of the latitude (reference 1) or longitude (reference 3)."""
    parts = [_number(part) for part in gps.get(reference + 1) or ()]
    if len(parts) != 3 or None in parts:
        return None
    degrees = sum(part / 60**index for index, part in enumerate(parts) if part is not None)
    sign = -1 if str(_word(gps.get(reference))).upper() in {"S", "W"} else 1
    return round(sign * degrees, 6) if degrees <= 180 else None
