"""Archives: what is in them, by name. Nothing is unpacked to the disk, and nothing inside is read as a file.

In: zip, tar (plain, gzip, bzip2, xz), 7z. Out: a listing as text, one name a line. One compressed file is no archive: its
text is read (compressed.py).
A compressed tar is read as a stream with limits on its unpacked size, so that a bomb costs what is read and no more.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from msearchd import errors
from msearchd.media import compressed, parser
from msearchd.media.extractor import MAX_DOCUMENT_BYTES, Reading, ReadRules
from msearchd.media.registry import FileType, Structure
from msearchd.media.source import Source

_MAX_NAMES: Final = 20_000
#: Unpacked bytes of a compressed tar that are read for its names.
_MAX_STREAM_BYTES: Final = 4 * 1024**3
_BROKEN: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    ValueError,
    NotImplementedError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
)


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """List an archive, or read one compressed text. BadAsset where its directory cannot be read; a damaged tail gives a note."""
    head = source.read(8)
    if head.startswith(b"PK"):
        return _listing(_zip_names, source)
    if head.startswith(b"7z\xbc\xaf'\x1c"):
        return _seven(source)
    if (single := compressed.read(source, rules)) is not None:
        return single
    return _listing(_tar_names, source)


def refuse_bomb(source: Source, *, max_bytes: int) -> None:
    """Raise BadAsset where the zip directory of *source* says that it unpacks to more than *max_bytes*."""
    with source.stream() as stream:
        try:
            with zipfile.ZipFile(stream) as opened:
                unpacked = sum(entry.file_size for entry in opened.infolist())
        except (*_BROKEN, OSError) as error:
            message = f"its zip container is damaged: {str(error) or type(error).__name__}"
            raise errors.BadAsset(message) from error
    if unpacked > max_bytes:
        sizes = f"{unpacked / 1024**3:.1f} GB, more than {max_bytes / 1024**3:.1f} GB"
        message = f"it would unpack to {sizes}: a zip bomb, or no document"
        raise errors.BadAsset(message)


def member(source: Source, name: str) -> bytes:
    """The unpacked bytes of member *name* of a zip whose sizes `refuse_bomb` has accepted. Raises BadAsset."""
    with source.stream() as stream:
        try:
            with zipfile.ZipFile(stream) as opened:
                return opened.read(name)  # never more than its directory entry says
        except (*_BROKEN, OSError, RuntimeError) as error:
            message = f"its part {name} cannot be read: {str(error) or type(error).__name__}"
            raise errors.BadAsset(message) from error


def _listing(names: Callable[[IO[bytes]], Iterator[tuple[str, int]]], source: Source) -> Reading:
    found: list[str] = []
    total, note = 0, ""
    try:
        with source.stream() as stream:
            for name, size in names(stream):
                if len(found) >= _MAX_NAMES:
                    note = f"only its first {_MAX_NAMES:,} names are listed"
                    break
                found.append(name)
                total += size
    except (*_BROKEN, OSError) as error:
        if not found:
            message = f"its directory cannot be read: {str(error) or type(error).__name__}"
            raise errors.BadAsset(message) from error
        note = f"damaged after {len(found):,} names"
    return Reading(
        "\n".join(found), Structure.ROWS, metadata={"entries": len(found), "unpacked_bytes": total}, note=note
    )


def _zip_names(stream: IO[bytes]) -> Iterator[tuple[str, int]]:
    with zipfile.ZipFile(stream) as opened:
        for entry in opened.infolist():
            yield entry.filename, entry.file_size


def _tar_names(stream: IO[bytes]) -> Iterator[tuple[str, int]]:
    plain = compressed.plain_of(stream)
    if plain is None:
        yield from _members(stream)
        return
    with plain:
        yield from _members(_Limited(plain))


def _members(stream: Any) -> Iterator[tuple[str, int]]:
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as opened:
        for entry in opened:
            opened.members = []  # type: ignore[attr-defined]  # it keeps every entry for ever otherwise
            yield entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), entry.size


class _Limited(io.RawIOBase):
    """Reads of a decompressor, counted: beyond the limit it raises instead of unpacking on."""

    def __init__(self, plain: IO[bytes]) -> None:
        self._plain, self._left = plain, _MAX_STREAM_BYTES

    def read(self, size: int = -1) -> bytes:
        self._left -= max(0, size)
        if self._left < 0:
            message = f"it unpacks to more than {_MAX_STREAM_BYTES / 1024**3:.0f} GB"
            raise ValueError(message)
        return self._plain.read(size)


def _seven(source: Source) -> Reading:
    if source.size > MAX_DOCUMENT_BYTES:
        return Reading(note=f"larger than {MAX_DOCUMENT_BYTES // 1024**2} MB: found by name only")
    parsed = parser.parse(source.read(MAX_DOCUMENT_BYTES), mime="application/x-7z-compressed")
    names = [str(name) for name in parsed.metadata.get("file_list") or ()][:_MAX_NAMES]
    return Reading("\n".join(names), Structure.ROWS, metadata={"entries": len(names)})
