"""One compressed file (`notes.txt.gz`, a rotated log): its text, as far as it is one.

In: gzip, bzip2 or xz that holds no tar. Out: the unpacked text up to the rules' limit. Unpacks as a stream and never more
than that limit, so that a bomb costs what is read; nothing is written to the disk.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from typing import IO, Any, Final

from msearchd import errors
from msearchd.media import registry, text
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import Reader, Structure
from msearchd.media.source import Source

#: What a decompressor raises for damaged bytes.
BROKEN: Final = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError, ValueError)
_BLOCK_BYTES: Final = 256 * 1024
#: `app.log.1.gz`, `syslog-20240501.gz`: what logrotate adds to a name.
_ROTATED: Final = re.compile(r"[.-]\d+$")


def plain_of(stream: IO[bytes]) -> Any | None:
    """A reader of what *stream* (at its start, seekable) unpacks to; None where it is not compressed."""
    start = stream.read(6)
    stream.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)
    if start.startswith(b"BZ"):
        return bz2.BZ2File(stream)
    return lzma.LZMAFile(stream) if start.startswith(b"\xfd7") else None


def is_tar(block: bytes) -> bool:
    """True where *block*, the first 512 bytes of something, begins a tar."""
    return block[257:262] == b"ustar"


def read(source: Source, rules: ReadRules) -> Reading | None:
    """The text of one compressed file; None where it is none: not compressed, or a tar.

    What is no text is found by name, with a note. Raises BadAsset where not a byte of it can be unpacked.
    """
    with source.stream() as stream:
        plain = plain_of(stream)
        if plain is None:
            return None
        with plain:
            data, broken = _unpacked(plain, limit=tarfile.BLOCKSIZE)
            if is_tar(data):
                return None
            limit = rules.max_text_chars * 4 + 4
            more, broken = ([], broken) if broken else _unpacked(plain, limit=limit - len(data))
            return _reading(data + bytes(more), inner_name(source.name), limit=limit, broken=broken)


def inner_name(name: str) -> str:
    """Name of the file inside: `notes.txt.gz` → notes.txt, `app.log.1.gz` → app.log. Pure."""
    return _ROTATED.sub("", name.rpartition(".")[0]) or name


def _unpacked(plain: Any, *, limit: int) -> tuple[bytes, str]:
    """At most *limit* bytes of *plain*, and what is wrong with the next ones ("" if nothing is)."""
    parts: list[bytes] = []
    left = limit
    try:
        while left > 0 and (part := plain.read(min(_BLOCK_BYTES, left))):
            parts.append(part)
            left -= len(part)
    except BROKEN as error:
        return b"".join(parts), str(error) or type(error).__name__
    return b"".join(parts), ""


def _reading(data: bytes, name: str, *, limit: int, broken: str) -> Reading:
    if not data:
        if broken:
            message = f"it cannot be unpacked: {broken}"
            raise errors.BadAsset(message)
        return Reading(note="empty")
    kind = registry.by_name(name)
    if kind is not None and kind.reader is not Reader.TEXT:
        return Reading(note=f"a compressed {kind.label}: found by name only")
    try:
        decoded = text.decode(data, is_cut=len(data) >= limit or bool(broken))
    except errors.BadAsset:
        return Reading(note="what is compressed in it is no text: found by name only")
    note = f"damaged after {len(data):,} unpacked bytes: {broken}" if broken else decoded.note
    structure = Structure.PROSE if kind is None else kind.structure
    return Reading(decoded.text, structure, metadata={"encoding": decoded.encoding}, note=note)
