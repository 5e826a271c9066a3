"""The picture child's main: a picture file's bytes in, upright RGB pixels out, one at a time. Child side.

A picture that comes over the network is foreign: whatever its decoder does, it does here.
"""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from msearchd import errors
from msearchd.aio.serve import Answer, Request, Server, Turn
from msearchd.media.extractor import ReadRules
from msearchd.media.image import opened_picture, upright

#: Twice what the largest usual models see; page models (ColPali) read small print.
_MAX_SIDE: Final = 1536


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Serve until the parent closes *sock*. *start* holds `rules` (ReadRules.as_args)."""
    rules = ReadRules.from_args(start["rules"])

    def decode(request: Request, _turn: Turn) -> Answer:
        with opened_picture(io.BytesIO(request.body)) as picture:
            pixels, _ = upright(picture, max_side=_MAX_SIDE, rules=rules)
        try:
            width, height = pixels.size
            return Answer({"width": width, "height": height}, pixels.tobytes())
        except MemoryError as error:
            raise errors.BadAsset("the picture needs more memory than its decoder may have") from error

    Server(sock, {"decode": decode}).run({"pid": os.getpid()})
