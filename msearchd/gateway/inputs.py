"""What the inputs of a request are: texts, or pictures and sounds as data: URIs. Pure; nothing is decoded but base64.

A path or a URL is never opened: it is a text like any other, and nothing is ever fetched. Programs of the field say what an
input is in two ways, and both are taken: a string with `modality` for all of them (infinity), or an object for each, {"text": ...},
{"image": ...}, {"audio": ...} (Jina). Without either a data: URI is what it says where the model takes that, else a text.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from msearchd.control.gateway import InputObject
from msearchd.errors import BadRequest

Modality = Literal["text", "image", "audio"]


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """Bytes of a picture file, not yet decoded: it becomes pixels in a child process."""

    content: bytes


@dataclass(frozen=True, slots=True)
class EncodedSound:
    """Bytes of a sound file, and what its sender calls it (audio/mpeg; "" where that is not said)."""

    content: bytes
    mime: str = ""


Understood = str | EncodedPicture | EncodedSound

#: A request this small is somebody's who waits; a larger one is bulk work and joins the index's batches.
_SMALL_COUNT = 16
_SMALL_CHARS = 8192
_A: Final = {"image": "picture", "audio": "sound"}
_WORDS: Final = {"image": "images", "audio": "audio"}


def understood(
    inputs: Sequence[str | InputObject], *, modality: Modality | None, takes: Collection[str]
) -> list[Understood]:
    """Each input as a text, a picture or a sound. Raises BadRequest that names the input that is not what it should be.

    *takes* says what the model takes beside text: "image", "audio".
    """
    _refuse_unless_taken(modality, takes)
    found: list[Understood] = []
    for index, one in enumerate(inputs):
        kind, value = (modality or _kind_of(one, takes), one) if isinstance(one, str) else one.said
        _refuse_unless_taken(kind, takes)
        if kind == "text":
            found.append(value)
        else:
            found.append(_decoded(value, kind, index=index, may_be_bare=not isinstance(one, str)))
    return found


def _refuse_unless_taken(kind: str | None, takes: Collection[str]) -> None:
    if kind in _WORDS and kind not in takes:
        message = f"this model does not serve {_WORDS[kind]}"
        raise BadRequest(message, hint="GET /v1/models says what each serves")


def _kind_of(text: str, takes: Collection[str]) -> str:
    """What a string is of itself: a data: URI of what the model takes, else a text, whatever it begins with."""
    head = text[:11].lower()
    return next((kind for kind in _WORDS if kind in takes and head == f"data:{kind}/"), "text")


def _decoded(value: str, kind: str, *, index: int, may_be_bare: bool) -> EncodedPicture | EncodedSound:
    head, comma, body = value.partition(",")
    is_uri = head[:11].lower() == f"data:{kind}/" and bool(comma) and head.lower().endswith(";base64")
    if may_be_bare and not is_uri and ":" not in value[:16]:  # as Jina's: base64 alone
        head, body, is_uri = "", value, True
    if not is_uri:
        message = f"input {index} is no {_A[kind]}: it does not begin with data:{kind}/...;base64,"
        raise BadRequest(message, hint=f"send {_A[kind]}s as data: URIs; paths and URLs are not opened")
    try:
        content = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"input {index} is no {_A[kind]}: its base64 is damaged ({error})"
        raise BadRequest(message, hint="encode the file's bytes as standard base64") from error
    if not content:
        message = f"input {index} is an empty {_A[kind]}"
        raise BadRequest(message, hint="encode the file's bytes as standard base64")
    if kind == "audio":
        return EncodedSound(content, head[5:].partition(";")[0].lower())
    return EncodedPicture(content)


def is_small(inputs: Sequence[Understood]) -> bool:
    """True where a request should overtake the index: a few texts, or one picture or sound."""
    if not all(isinstance(one, str) for one in inputs):
        return len(inputs) == 1
    return len(inputs) <= _SMALL_COUNT and sum(len(one) for one in inputs if isinstance(one, str)) <= _SMALL_CHARS
