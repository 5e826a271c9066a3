"""kreuzberg, the document parser, behind one function: bytes and a MIME type in, text and metadata out. Child side.

Offline by construction: the MIME type is always ours (it never guesses), source code never reaches it (it would fetch
grammars from the net), its cache and its OCR are off. One thread.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msearchd import errors

#: The sentence for documents that ask for a password; callers turn it into a note.
ENCRYPTED: Final = "it is encrypted"


@dataclass(frozen=True, slots=True)
class Parsed:
    """Text as the parser gives it, page starts as (offset in characters, page from 1), its metadata."""

    text: str
    page_starts: tuple[tuple[int, int], ...]
    metadata: Mapping[str, Any]
    page_count: int


def parse(data: bytes, *, mime: str) -> Parsed:
    """Parse *data*. Raises BadAsset with a sentence, Misconfigured where kreuzberg is not installed."""
    kreuzberg, config = library(), _config()
    try:
        result = kreuzberg.extract_bytes_sync(data, mime, config=config)
    except kreuzberg.KreuzbergError as error:
        raise _translated(error) from error
    except MemoryError:
        raise
    except Exception as error:  # Rust panics and binding errors: no promise of types is kept there
        raise _translated(error) from error
    found = dict(result.metadata or {})
    text = str(result.content or "")
    pages = found.get("pages") or {}
    starts = _page_starts(text, pages.get("boundaries") or ())
    count = int(found.get("page_count") or pages.get("total_count") or 0)
    return Parsed(text, starts, found, count)


def _page_starts(text: str, boundaries: Any) -> tuple[tuple[int, int], ...]:
    """Byte boundaries of UTF-8 as character offsets; pages without text share their neighbour's offset and are left
    out.
    """
    if not boundaries:
        return ()
    encoded = text.encode("utf-8", "surrogatepass")
    starts: list[tuple[int, int]] = []
    done_bytes = done_chars = 0
    for boundary in sorted(boundaries, key=lambda item: int(item["byte_start"])):
        begin, end = int(boundary["byte_start"]), int(boundary["byte_end"])
        if end <= begin:
            continue
        done_chars += len(encoded[done_bytes:begin].decode("utf-8", "ignore"))
        done_bytes = max(done_bytes, begin)
        starts.append((done_chars, int(boundary["page_number"])))
    return tuple(starts)


def library() -> Any:
    """The kreuzberg module. Raises Misconfigured where it is not installed."""
    try:
        import kreuzberg
    except ImportError as error:
        message = "the document parser is not installed"
        raise errors.Misconfigured(
            message, key="engine:documents", hint="type: pip install 'msearchd[documents]'"
        ) from error
    return kreuzberg


@functools.cache
def _config() -> Any:
    kreuzberg = library()
    return kreuzberg.ExtractionConfig(
        use_cache=False,  # it would copy the texts of private files to ~/.cache
        enable_quality_processing=False,  # it rewrites text; offsets and quotes must be the file's own
        disable_ocr=True,
        pages=kreuzberg.PageConfig(extract_pages=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )


def _translated(error: Exception) -> errors.BadAsset:
    said = " ".join(str(error).split())[:300]
    lowered = said.lower()
    if "password" in lowered or "encrypted" in lowered:
        return errors.BadAsset(ENCRYPTED, hint="save it without a password to make its text searchable")
    message = f"the parser cannot read it: {said}"
    return errors.BadAsset(message)
