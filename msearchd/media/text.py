r"""Plain text, Markdown, source code: bytes to characters.

In: bytes in any encoding. Out: text with "\n" line ends, no NUL, no lone surrogates. Bytes that are no text raise
BadAsset.

    byte order mark > UTF-8 > UTF-16 by its zeros > Windows-1252 of Western languages > charset-normalizer
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

from msearchd import errors
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import FileType
from msearchd.media.source import Source

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES: Final = 64 * 1024
#: Control characters that no text has. Escape (terminal logs) and form feed are none of them.
_CONTROLS: Final = bytes(set(range(0x20)) - {0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1A, 0x1B})
_UNWANTED: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff\ufeff]")
#: Letters and signs beyond ASCII that Western European texts in Windows-1252 are made of.
_WESTERN: Final = frozenset(
    "äöüÄÖÜßéèêëàâáåãçñíìîïóòôõøæœúùûÿÉÈÊËÀÂÁÅÃÇÑÍÌÎÏÓÒÔÕØÆŒÚÙÛ€£§©®°±·«»“”„‘’‚–—…•½¼¾²³µ¿¡´ºª \xa0"  # noqa: RUF001
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Clean text, the encoding it had, and a note where some bytes made no sense in it."""

    text: str
    encoding: str
    note: str = ""


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:
    """Read the file as text, cut at the rules' limit with a note. Raises BadAsset for bytes that are no text."""
    if source.size == 0:
        return Reading(note="empty")
    # Four bytes are the longest character of any encoding here; one more tells that there is more.
    data = source.read(rules.max_text_chars * 4 + 4)
    decoded = decode(data, is_cut=len(data) < source.size)
    return Reading(decoded.text, kind.structure, metadata={"encoding": decoded.encoding}, note=decoded.note)


def decode(data: bytes, *, is_cut: bool = False) -> Decoded:
    """Characters of *data*. With *is_cut* its end may lie inside a character. Raises BadAsset for binary data."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _lenient(data, encoding.removesuffix("-sig") if encoding == "utf-8-sig" else encoding, skip=encoding)
    if not is_cut:
        try:
            return Decoded(clean(data.decode("utf-8")), "ascii" if data.isascii() else "utf-8")
        except UnicodeDecodeError:
            pass
    elif is_utf8(data):
        return Decoded(clean(data.decode("utf-8", "ignore")), "utf-8")
    if (wide := wide_encoding(data)) is not None:
        return _lenient(data, wide)
    if looks_binary(data[:_SAMPLE_BYTES]):
        raise errors.BadAsset("its bytes are no text")
    if _is_mostly_utf8(data):
        return Decoded(
            clean(data.decode("utf-8", "replace")), "utf-8", "some bytes are no UTF-8 and are shown as \ufffd"
        )
    return _legacy(data)


def is_utf8(data: bytes) -> bool:
    """True where *data* is UTF-8 up to a character that its end may cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def wide_encoding(data: bytes) -> str | None:
    """Tell utf-16-le or utf-16-be where the zeros of a Western text give it away without a mark, else None."""
    sample = data[: _SAMPLE_BYTES // 16 * 2]
    if len(sample) < 8 or (len(data) % 2 and len(data) <= len(sample)):
        return None
    half = len(sample) // 2
    even, odd = sample[0::2].count(0) / half, sample[1::2].count(0) / half
    # 0.4: half of the characters of a Latin text with many accents still lie below U+0100.
    encoding = "utf-16-le" if odd > 0.4 and even < 0.05 else "utf-16-be" if even > 0.4 and odd < 0.05 else None
    if encoding is None:
        return None
    text = sample.decode(encoding, "replace")
    strange = len(_UNWANTED.findall(text)) + text.count("\ufffd")
    return encoding if strange <= len(text) / 200 + 1 else None  # raw samples and tables have zeros too


def looks_binary(sample: bytes) -> bool:
    """True where *sample* holds control characters as no text does: any NUL, or more than 1 in 200 others."""
    return b"\0" in sample or len(sample) - len(sample.translate(None, _CONTROLS)) > len(sample) / 200


def clean(text: str) -> str:
    """One kind of line end; characters that break databases, terminals or models become a space or U+FFFD."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _UNWANTED.search(text):
        text = _UNWANTED.sub(lambda match: "\ufffd" if match[0] >= "\ud800" and match[0] != "\ufeff" else " ", text)
    return text


def _lenient(data: bytes, encoding: str, *, skip: str = "") -> Decoded:
    text = data.decode(skip or encoding, "replace")
    bad = text.count("\ufffd")
    if bad > len(text) / 20:
        message = f"its bytes begin like {encoding} but are not"
        raise errors.BadAsset(message)
    return Decoded(clean(text), encoding, f"some bytes are no {encoding} and are shown as \ufffd" if bad else "")


def _is_mostly_utf8(data: bytes) -> bool:
    text = data[:_SAMPLE_BYTES].decode("utf-8", "replace")
    good = sum(len(run) for run in re.findall(r"[^\x00-\x7f\ufffd]+", text))
    # A legacy encoding almost never forms UTF-8 sequences by chance: nine good characters to one bad is damage.
    return good > 9 * text.count("\ufffd")


def _legacy(data: bytes) -> Decoded:
    sample = data[:_SAMPLE_BYTES]
    western = sample.decode("cp1252", "replace")
    beyond = [character for character in western if character > "\x7f"]
    if sum(character in _WESTERN for character in beyond) >= 0.98 * len(beyond) and _is_sprinkled(western):
        return Decoded(clean(data.decode("cp1252", "replace")), "cp1252")
    for encoding in ("cp932", "euc_jp"):
        if _is_japanese(sample, encoding):
            return Decoded(clean(data.decode(encoding, "replace")), encoding)
    from charset_normalizer import from_bytes

    best = from_bytes(sample).best()
    encoding = best.encoding if best is not None else "cp1252"
    return Decoded(clean(data.decode(encoding, "replace")), encoding)


def _is_japanese(sample: bytes, encoding: str) -> bool:
    """True where kana, which no other language has, are a fifth of what is beyond ASCII (statistics mistake them for
    Korean).
    """
    text = sample.decode(encoding, "replace")
    beyond = [character for character in text if character > "\x7f"]
    kana = sum("\u3040" <= character <= "\u30ff" for character in beyond)
    return kana >= 0.2 * len(beyond) and text.count("\ufffd") <= 0.01 * len(beyond) + 1


def _is_sprinkled(western: str) -> bool:
    """True where accents stand among plain letters, as in Western words; Cyrillic or Japanese read so has long runs
    of them.
    """
    runs = [len(run) for run in re.findall(r"[\xc0-\u024f]+", western)]
    return not runs or (max(runs) <= 3 and sum(runs) <= 0.3 * len(western))
