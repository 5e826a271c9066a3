"""HTML and SVG: what a reader of the page sees, without scripts, styles and navigation.

In: bytes in the encoding that the page or its bytes declare. Out: text, title, author, language.
SVG is stripped of its tags and no entity is ever expanded, so an XML bomb stays a small text.
"""

from __future__ import annotations

import html
import re
from typing import Final

from msearchd import errors
from msearchd.media import parser
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import FileType
from msearchd.media.source import Source
from msearchd.media.text import clean, decode

_DECLARED: Final = re.compile(rb"""<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_\-]+)""", re.IGNORECASE)
_DECLARATION: Final = re.compile(r"""<meta[^>]+charset\s*=[^>]*>""", re.IGNORECASE)
_UNSEEN: Final = re.compile(r"<!--.*?-->|<(style|script|metadata)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^>]*>")
_SVG_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)</title>", re.IGNORECASE)
_BLANK: Final = re.compile(r"[ \t]*\n\s*\n\s*")


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """Read a page or a drawing. Raises BadAsset for bytes that are no text or no markup."""
    if source.size == 0:
        return Reading(note="empty")
    limit = rules.max_text_chars * 4
    data = source.read(limit)
    page, encoding = _decoded(data, is_cut=source.size > limit)
    note = f"only its first {limit:,} bytes were read" if source.size > limit else ""
    if "<svg" in page[:4096].lower() and "<html" not in page[:4096].lower():
        title = _SVG_TITLE.search(page)
        return Reading(
            stripped(page),
            metadata={"title": html.unescape(title[1]) if title else "", "encoding": encoding},
            note=note,
        )
    parsed = parser.parse(_DECLARATION.sub("", page).encode("utf-8", "replace"), mime="text/html")
    found = parsed.metadata
    authors = found.get("authors") or found.get("author")
    metadata = {
        "title": found.get("title"),
        "language": found.get("language"),
        "description": found.get("description"),
        "keywords": found.get("keywords"),
        "encoding": encoding,
        "author": ", ".join(authors) if isinstance(authors, list) else authors,
    }
    return Reading(clean(parsed.text), metadata=metadata, note=note)


def stripped(page: str) -> str:
    """Text between the tags of *page*; character references are read, entities of its own are not."""
    text = html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", page)))
    return clean(_BLANK.sub("\n\n", text)).strip()


def _decoded(data: bytes, *, is_cut: bool) -> tuple[str, str]:
    declared = _DECLARED.search(data[:4096])
    if declared is not None:
        name = declared[1].decode("ascii")
        try:
            return data.decode(name), name.lower()
        except (LookupError, UnicodeError):
            pass  # it declares one thing and is another: look at the bytes
    try:
        decoded = decode(data, is_cut=is_cut)
    except errors.BadAsset as error:
        message = f"{error}, though it begins like a page"
        raise errors.BadAsset(message) from error
    return decoded.text, decoded.encoding
