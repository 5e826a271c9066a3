"""What the inputs of a request are: texts, or pictures as data: URIs. Pure; nothing is decoded but base64.

A path or a URL is never opened: it is a text like any other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msearchd.errors import BadRequest


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """Bytes of a picture file, not yet decoded: it becomes pixels in a child process."""

    content: bytes


#: A request this small is somebody's who waits; a larger one is bulk work and joins the index's batches.
_SMALL_COUNT = 16
_SMALL_CHARS = 8192


def understood(
    inputs: Sequence[str], *, modality: Literal["text", "image"] | None, serves_images: bool
) -> list[str | EncodedPicture]:
    """Each input as a text or a picture. Raises BadRequest that names the input that is not what it should be.

    Without *modality* a data: URI of an image is a picture where the model serves images, and a text elsewhere.
    """
    if modality == "image" and not serves_images:
        message = "this model does not serve images"
        raise BadRequest(message, hint="GET /v1/models says what each serves")
    found: list[str | EncodedPicture] = []
    for index, text in enumerate(inputs):
        if modality == "image" or (modality is None and serves_images and text[:11].lower() == "data:image/"):
            found.append(_picture(text, index=index))
        else:
            found.append(text)
    return found


def _picture(uri: str, *, index: int) -> EncodedPicture:
    head, comma, body = uri.partition(",")
    if head[:11].lower() != "data:image/" or not comma or not head.lower().endswith(";base64"):
        message = f"input {index} is no picture: it does not begin with data:image/...;base64,"
        raise BadRequest(message, hint="send pictures as data: URIs; paths and URLs are not opened")
    try:
        content = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"input {index} is no picture: its base64 is damaged ({error})"
        raise BadRequest(message, hint="encode the file's bytes as standard base64") from error
    if not content:
        message = f"input {index} is an empty picture"
        raise BadRequest(message, hint="encode the file's bytes as standard base64")
    return EncodedPicture(content)


def is_small(inputs: Sequence[str | EncodedPicture]) -> bool:
    """True where a request should overtake the index: a few texts, or one picture."""
    pictures = sum(isinstance(one, EncodedPicture) for one in inputs)
    if pictures:
        return len(inputs) == 1
    return len(inputs) <= _SMALL_COUNT and sum(len(one) for one in inputs if isinstance(one, str)) <= _SMALL_CHARS
