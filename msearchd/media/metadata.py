"""Metadata as flat JSON-able values, and as one text that can be searched. Pure.

In: whatever a reader found. Out: `flat` values (strings, numbers, booleans, lists of strings) and the METADATA
segment's text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msearchd.media.text import clean

_MAX_VALUE_CHARS: Final = 2000
_MAX_LIST: Final = 50
#: Keys that people search by, in the order in which they are written; others are kept as filters only.
_SEARCHED: Final[tuple[tuple[str, str], ...]] = (
    ("title", "Title"),
    ("subject", "Subject"),
    ("author", "Author"),
    ("artist", "Artist"),
    ("album_artist", "Album artist"),
    ("album", "Album"),
    ("composer", "Composer"),
    ("genre", "Genre"),
    ("date", "Date"),
    ("sender", "From"),
    ("recipients", "To"),
    ("keywords", "Keywords"),
    ("description", "Description"),
    ("comment", "Comment"),
    ("lyrics", "Lyrics"),
    ("attachments", "Attachments"),
    ("sheet_names", "Sheets"),
    ("camera", "Camera"),
    ("lens", "Lens"),
    ("taken", "Taken"),
    ("place", "Place"),
    ("created", "Created"),
    ("sent", "Sent"),
    ("publisher", "Publisher"),
    ("copyright", "Copyright"),
    ("software", "Software"),
)
#: Worth a segment of their own only beside something that a person wrote.
_WEAK: Final = frozenset({"created", "date", "genre", "software", "sheet_names"})


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain copies of *values*: empty ones dropped, texts cleaned and cut at 2,000 characters, lists at 50 items."""
    out = {}
    for key, value in values.items():
        kept = _plain(value)
        if kept is not None and kept not in ("", []):
            out[key] = kept
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return clean(value).strip()[:_MAX_VALUE_CHARS]
    if isinstance(value, list | tuple):
        return [text for item in value[:_MAX_LIST] if (text := clean(str(item)).strip()[:_MAX_VALUE_CHARS])]
    return None


def searchable(metadata: Mapping[str, Any]) -> str:
    """Lines such as "Author: Astrid Holm" for what people search by; "" where there is nothing that somebody wrote."""
    present = [(key, label) for key, label in _SEARCHED if key in metadata]
    if all(key in _WEAK for key, _ in present):
        return ""
    return "\n".join(f"{label}: {_joined(metadata[key])}" for key, label in present)


def _joined(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
