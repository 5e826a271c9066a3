"""The picture child's main: a picture's or sound's bytes in, upright RGB pixels or PCM out, one at a time. Child side.

What comes over the network is foreign: whatever its decoder does, it does here.
"""

from __future__ import annotations

import io
import os
import socket
import tempfile
from collections.abc import Mapping
from typing import Any, Final

from msearchd import errors
from msearchd.aio.serve import Answer, Request, Server, Turn
from msearchd.domain.asset import StatFingerprint
from msearchd.media.audio import WINDOW_MS
from msearchd.media.extractor import ReadRules
from msearchd.media.image import opened_picture, upright
from msearchd.media.source import Source

#: Twice what the largest usual models see; page models (ColPali) read small print.
_MAX_SIDE: Final = 1536
#: What models hear.
_RATE: Final = 48_000
#: Encoders pad: a file of ten seconds may say a little more.
_SPARE_MS: Final = 400
_HEAD_BYTES: Final = 4096
#: For those that do not tell themselves by their first bytes.
_BY_MIME: Final = {
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/flac": "flac",
    "audio/ogg": "ogg", "audio/mp4": "m4a", "audio/aac": "m4a", "audio/x-m4a": "m4a", "audio/webm": "webm",
    "audio/aiff": "aiff", "audio/x-aiff": "aiff",
}  # fmt: skip


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

    Server(sock, {"decode": decode, "hear": hear}).run({"pid": os.getpid()})


def hear(request: Request, _turn: Turn) -> Answer:
    """{"rate"} and mono float32 samples of a whole sound; `mime` is what its sender calls it. Raises BadAsset, Misconfigured."""
    from msearchd.media import ffmpeg, signatures

    content = bytes(request.body)
    label = signatures.binary_label(content[:_HEAD_BYTES]) or _BY_MIME.get(request.args["mime"], "")
    if label not in ffmpeg.DEMUXERS:
        raise errors.BadAsset("it is of no kind of sound that is known", hint="send wav, mp3, flac, ogg, m4a or webm")
    with tempfile.TemporaryFile(prefix="msearchd-sound-") as file:
        file.write(content)
        file.flush()
        source = Source(b"sound", file.fileno(), StatFingerprint.of(os.fstat(file.fileno())))
        # A little more than is heard: a longer sound is refused, for which part of it is meant is not ours to say.
        pcm = b"".join(ffmpeg.pcm(source, label, rate=_RATE, start_ms=0, length_ms=WINDOW_MS + _SPARE_MS))
    if len(pcm) > 4 * _RATE * (WINDOW_MS + _SPARE_MS // 2) // 1000:
        message = f"it is longer than {WINDOW_MS // 1000} s, and one vector tells of no more"
        raise errors.BadAsset(message, hint="send it in pieces, each an input of its own")
    if not pcm:
        raise errors.BadAsset("there is no sound in it", hint="send another")
    return Answer({"rate": _RATE}, pcm)
