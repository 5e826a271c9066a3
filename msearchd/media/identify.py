"""identify: the bytes' name (BLAKE3), the type by content, and the stat that held before and after. Child side.

In: an open `Source`. Out: `Identified`. The file is streamed once, whatever its size; 128 KiB of it are kept to look
at.

    signature  >  text whose name says a text type  >  learned detector (magika)  >  plain text or unknown
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from msearchd.domain.asset import ContentHash
from msearchd.domain.media import Identified, Modality
from msearchd.media import registry, signatures, text
from msearchd.media.source import Source

_LOOK_BYTES: Final = 64 * 1024
_PROGRESS_BYTES: Final = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Guess:
    """What the learned detector says: label, MIME type and group are its own words."""

    label: str
    mime: str
    group: str
    is_text: bool


#: Asks the learned detector about a file; None where it is not installed.
Detect = Callable[[], Guess | None]
_MODALITY_OF_GROUP: Final = {
    "image": Modality.IMAGE,
    "audio": Modality.AUDIO,
    "video": Modality.VIDEO,
    "document": Modality.DOCUMENT,
    "archive": Modality.DOCUMENT,
}


def identify(source: Source, *, detect: Callable[[Source], Guess | None]) -> Iterator[Identified | None]:
    """Hash and look at *source*: yields None after each 64 MiB, so that a slow disk is not taken for a hang, then the
    result.

    Raises Changed if it changed meanwhile, NotFound, BadAsset or RetryLater.
    """
    hasher = blake3()
    head, since_told = b"", 0
    for block in source.blocks():
        hasher.update(block)
        head = head or block[:_LOOK_BYTES]
        since_told += len(block)
        if since_told >= _PROGRESS_BYTES:
            since_told = 0
            yield None
    tail = head if source.size <= _LOOK_BYTES else source.tail(_LOOK_BYTES)
    found = decide(head, tail, name=source.name, size=source.size, detect=lambda: detect(source))
    source.check()
    yield Identified(source.fingerprint, ContentHash(hasher.digest()), found.mime, found.label, found.modality)


def decide(head: bytes, tail: bytes, *, name: str, size: int, detect: Detect) -> registry.FileType:
    """The type of a file from its ends and its name. Asks *detect* only where neither decides; pure otherwise."""
    if size == 0:
        return _row("empty")
    if (label := signatures.binary_label(head, tail)) is not None:
        return _row(label)
    named = registry.by_name(name)
    if not _is_text(head):
        return _from_guess(detect(), is_text=False)
    said = signatures.text_label(head)
    if named is not None and (named.modality is Modality.TEXT or named.label in _NAMED_TEXTS):
        # The name decides between kinds of text: `.md` and `.h` look alike from inside. Only a page without a name for
        # it (saved as .txt) is what its first line says.
        return _row(said) if said is not None and named.label in {"txt", "xml"} else named
    if said is not None:
        return _row(said)
    return _from_guess(detect(), is_text=True)


def _is_text(head: bytes) -> bool:
    if head.startswith(_BYTE_ORDER_MARKS) or text.wide_encoding(head) is not None:
        return True
    if text.looks_binary(head):
        return False
    if text.is_utf8(head):
        return True
    # Some encoding of another age, or a compressed format without a signature: letters come in few distinct bytes.
    return _is_wordlike(head)


#: Types that are written as text and are something else to a person.
_NAMED_TEXTS: Final = frozenset({"eml", "svg"})
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
_WORD_BREAKS: Final = b" \n\t\r"


def _is_wordlike(head: bytes) -> bool:
    """True where bytes beyond ASCII look like language: spaces or line ends among them, and far fewer than 256
    values.
    """
    breaks = sum(head.count(byte) for byte in _WORD_BREAKS)
    return breaks * 150 >= len(head) and len(set(head)) <= max(24, min(190, len(head) // 2))


def _from_guess(guess: Guess | None, *, is_text: bool) -> registry.FileType:
    if guess is None or guess.label in {"unknown", "undefined", "empty"}:
        return _row("txt" if is_text else "unknown")
    row = registry.by_label(guess.label)
    return _text_from(guess, row) if is_text else _binary_from(guess, row)


def _text_from(guess: Guess, row: registry.FileType | None) -> registry.FileType:
    if row is not None:
        # A text cannot be a picture, whatever the detector says.
        return row if row.modality is Modality.TEXT or row.label in _NAMED_TEXTS else _row("txt")
    if not guess.is_text:
        return _row("txt")
    return registry.FileType(guess.label, guess.mime, Modality.TEXT, registry.Reader.TEXT, registry.Structure.CODE)


def _binary_from(guess: Guess, row: registry.FileType | None) -> registry.FileType:
    if row is not None and row.modality is not Modality.TEXT:
        return row
    if row is not None or guess.is_text:
        return _row("unknown")  # binary bytes that look like a text type: damaged, or an encoding of another kind
    modality = _MODALITY_OF_GROUP.get(guess.group, Modality.OTHER)
    return registry.FileType(guess.label, guess.mime, modality, registry.Reader.NOTHING)


def _row(label: str) -> registry.FileType:
    row = registry.by_label(label)
    if row is None:  # a typo in a table of ours
        raise KeyError(label)
    return row
