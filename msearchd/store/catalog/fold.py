"""How names and texts become searchable keys: pure functions of strings.

In: file names as bytes, texts, single words. Out: folded keys, FTS5 columns, trigrams. Never touches the database.

DANGER: `index_columns` is what was handed to the contentless FTS5 table, and the same must be handed in again to delete
a row. A change of its result needs a migration that rebuilds `segment_words`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

#: Scripts written without spaces between words (and Hangul, whose words carry their particles): indexed as overlapping
#: pairs of characters, because unicode61 would take a whole run for one word.
_UNSPACED: Final = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\uac00-\ud7af"  # Hangul
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED_RUN: Final = re.compile(f"[{_UNSPACED}]+")
_CAMEL_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{2,63}")
_CAMEL_EDGE: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z]{2})(?=[0-9])")
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
#: In no name that a person types.
_PAD: Final = "\u2581"
_LATIN_MARKS: Final = re.compile("[\u0300-\u036f]")
#: Counts up whenever a name is folded otherwise than before, and so found by other words: refold.py.
FORM: Final = 2
_SIGNS: Final = frozenset({"So", "Sm", "Sc"})
_EXT: Final = re.compile(r"[^\s./]{1,16}")


def fold(text: str) -> str:
    """Compare key: compatibility forms unified, case folded, Latin accents dropped; NFC (macOS names are NFD)."""
    if text.isascii():
        return text.lower()
    bare = _LATIN_MARKS.sub("", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFC", bare)


def name_key(name: bytes) -> str:
    """Folded name; bytes that are not UTF-8 become U+FFFD, so the rest of the name is still found."""
    return fold(name.decode("utf-8", "replace"))


def extension(key: str) -> str:
    """Extension of a folded name without its dot: "pdf"; "" for `.bashrc`, `README` and ends that are no extension."""
    stem, dot, ext = key.rpartition(".")
    return ext if dot and stem and _EXT.fullmatch(ext) else ""


def short_grams(key: str) -> str:
    """What trigrams cannot find in a folded name, padded to three characters; "" for most names.

    That is its words of one or two characters, the single characters and pairs of unspaced scripts, and its symbols.
    """
    grams = dict.fromkeys(pad(word) for word in _WORD.findall(key) if len(word) < 3)
    if not key.isascii():
        for run in _UNSPACED_RUN.findall(key):
            grams |= dict.fromkeys(pad(piece) for piece in (*run, *_pairs(run)))
        grams |= dict.fromkeys(map(pad, symbols_of(key)))
    return " ".join(grams)


def grams_of(word: str) -> list[str]:
    """Trigrams that a folded name must have to hold *word*; a shorter word is padded as `short_grams` pads it."""
    return [pad(word)] if len(word) < 3 else list(dict.fromkeys(word[i : i + 3] for i in range(len(word) - 2)))


def pad(word: str) -> str:
    """A word of one or two characters, as long as a trigram."""
    return word.ljust(3, _PAD)


def words_of(key: str) -> list[str]:
    """Words of a folded name: runs of letters and runs of digits, "img2031_final" → img 2031 final."""
    return _WORD.findall(key)


def symbols_of(text: str) -> list[str]:
    """Emoji and other signs beyond ASCII (🎉 € →), each once: people put them into names to find them again by."""
    if text.isascii():
        return []
    # U+FFFD stands for bytes that are no UTF-8; skin tones (Sk) and what joins emoji say nothing alone.
    found = (sign for sign in text if unicodedata.category(sign) in _SIGNS and sign not in f"\ufffd{_PAD}")
    return list(dict.fromkeys(found))


def apart(text: str) -> str:
    """*text* with spaces around its signs: "x🚀" → "x 🚀 "."""
    for sign in symbols_of(text):
        text = text.replace(sign, f" {sign} ")
    return text


def has_unspaced(text: str) -> bool:
    """True if *text* has characters of a script without spaces."""
    return not text.isascii() and _UNSPACED_RUN.search(text) is not None


def pair_unspaced(text: str) -> str:
    """Replace each run of unspaced script by its overlapping pairs: "東京都" → " 東京 京都 ". A single one stays."""
    if text.isascii():
        return text
    return _UNSPACED_RUN.sub(lambda run: f" {' '.join(_pairs(run[0]))} ", text)


def _pairs(run: str) -> list[str]:
    return [run[i : i + 2] for i in range(len(run) - 1)] or [run]


def camel_parts(word: str) -> list[str]:
    """Pieces of an identifier: "getUserName" → get User Name, "HTTPServer2" → HTTP Server 2; [] if it is one piece."""
    parts = [part for part in _CAMEL_EDGE.split(word) if part]
    return parts if len(parts) > 1 else []


def index_columns(text: str) -> tuple[str, str]:
    """The columns (text, parts) of `segment_words`.

    `parts` holds, once each: the pieces of camelCase words, and the last character of each unspaced run (so that a
    question of one character, asked as a prefix, finds it). snake_case needs nothing: unicode61 takes `_` for a space.
    """
    parts: dict[str, None] = {}
    for word in _CAMEL_WORD.findall(text):
        if pieces := camel_parts(word):
            parts[" ".join(pieces)] = None
    if not text.isascii():
        for run in _UNSPACED_RUN.findall(text):
            if len(run) > 1:
                parts[run[-1]] = None
    return pair_unspaced(text), " ".join(parts)
