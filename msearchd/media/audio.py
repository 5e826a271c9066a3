"""Sound files, and the sound track of films: tags, length, and the windows that a model hears. Child side.

In: an open file. Out: a Reading without text: metadata, and AUDIO places of at most 10 s; or PCM of such places.
Windows are a pure function of the length, so the same bytes have the same points. Memory does not grow with the length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.sample import Sound
from msearchd.media import ffmpeg
from msearchd.media.extractor import Reading, ReadRules
from msearchd.media.registry import FileType
from msearchd.media.source import Source

#: CLAP hears 10 s; of a longer sound it takes a part by chance, another one at each call.
WINDOW_MS: Final = 10_000
#: A rest shorter than this is the tail of the window before, which is then cut in two halves.
_SHORTEST_MS: Final = 2_000
#: What a sound is at least to be worth a vector; a click of a user interface is.
_AUDIBLE_MS: Final = 20
#: 24 hours in windows; what comes after is found by words and names.
_MOST_WINDOWS: Final = 8640
_DAY_MS: Final = 24 * 3600 * 1000
_TAGS: Final = {
    "title": "title",
    "artist": "artist",
    "album_artist": "album_artist",
    "album": "album",
    "composer": "composer",
    "genre": "genre",
    "date": "date",
    "year": "date",
    "track": "track",
    "comment": "comment",
    "description": "description",
    "synopsis": "description",
    "lyrics": "lyrics",
    "copyright": "copyright",
    "publisher": "publisher",
    "encoder": "software",
    "creation_time": "created",
    "language": "language",
}


def read(source: Source, kind: FileType, rules: ReadRules) -> Reading:  # noqa: ARG001 - one signature for all readers
    """Tags, length and windows. Raises BadAsset where no stream can be found, Misconfigured without ffmpeg."""
    found = ffmpeg.probe(source, kind.label)
    streams: list[Mapping[str, Any]] = found["streams"]
    sound = next((stream for stream in streams if stream.get("codec_type") == "audio"), None)
    # Cover art of a music file is a video stream too.
    picture = next(
        (s for s in streams if s.get("codec_type") == "video" and not s.get("disposition", {}).get("attached_pic")),
        None,
    )
    metadata = {**_tags(found, streams), **_facts(found, sound, picture)}
    if sound is None:
        return Reading(metadata=metadata, note="it has no sound")
    length_ms = _length_ms(found, sound)
    if length_ms is None:
        length_ms = _measured_ms(source, kind.label)
    metadata["duration_s"] = round(length_ms / 1000, 3)
    windows = windows_of(length_ms)
    note = "" if length_ms <= _DAY_MS else "only its first 24 hours are heard"
    if not windows:
        note = "there is no sound in it"
    places = [Segment(SegmentKind.AUDIO, seq, t0_ms=t0, t1_ms=t1) for seq, (t0, t1) in enumerate(windows)]
    return Reading(metadata=metadata, places=places, note=note)


def windows_of(length_ms: int) -> list[tuple[int, int]]:
    """Places (t0, t1) in milliseconds, gapless, each of at most WINDOW_MS: pure.

    The last two share what is left where a rest would be too short to tell anything.
    """
    if length_ms < _AUDIBLE_MS:
        return []
    length_ms = min(length_ms, _MOST_WINDOWS * WINDOW_MS)
    edges = [*range(0, length_ms, WINDOW_MS), length_ms]
    if len(edges) > 2 and edges[-1] - edges[-2] < _SHORTEST_MS:
        edges[-2] = (edges[-3] + edges[-1]) // 2
    return list(pairwise(edges))


class Decodes(Protocol):
    """Makes samples of a place in a sound: ffmpeg.pcm, or Listening.pcm which keeps its decoder."""

    def __call__(
        self, source: Source, label: str, *, rate: int, start_ms: int, length_ms: int
    ) -> Generator[bytes, None, None]:
        """See ffmpeg.pcm."""
        ...


def sounds(
    source: Source, kind: FileType, *, rate: int, spans: Sequence[tuple[int, int]], decode: Decodes = ffmpeg.pcm
) -> Iterator[Sound]:
    """The sound of each of *spans* (gapless, ascending), decoded in one pass; fewer where the file ends before them.

    Raises BadAsset where nothing can be decoded.
    """
    first_ms = spans[0][0]
    length_ms = spans[-1][1] - first_ms
    have = bytearray()
    with contextlib.closing(decode(source, kind.label, rate=rate, start_ms=first_ms, length_ms=length_ms)) as parts:
        for t0, t1 in spans:
            # From the edges, not from the length: rounding never adds up.
            want = 4 * (_samples(t1 - first_ms, rate) - _samples(t0 - first_ms, rate))
            while len(have) < want and (part := next(parts, b"")):
                have += part
            if len(have) < 4 * _samples(_AUDIBLE_MS, rate):
                break
            with memoryview(have) as view:
                sound = Sound(rate, bytes(view[:want]))
            del have[:want]
            yield sound


def _samples(time_ms: int, rate: int) -> int:
    return time_ms * rate // 1000


def _length_ms(found: Mapping[str, Any], sound: Mapping[str, Any]) -> int | None:
    """As the container says; None where it does not, or says what cannot be."""
    for value in (sound.get("duration"), found.get("format", {}).get("duration")):
        try:
            length_ms = int(float(value or 0) * 1000)
        except (TypeError, ValueError, OverflowError):
            continue
        if 0 < length_ms < 1000 * _DAY_MS:
            return length_ms
    return None


def _measured_ms(source: Source, label: str) -> int:
    """By decoding it: a recording that was cut off has no length in its header."""
    rate = 8000
    parts = ffmpeg.pcm(source, label, rate=rate, start_ms=0, length_ms=_DAY_MS)
    return sum(len(part) for part in parts) // 4 * 1000 // rate


def _tags(found: Mapping[str, Any], streams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What people wrote, in our words; Ogg keeps it in the stream, all others in the container."""
    said: dict[str, Any] = {}
    for holder in (*streams, found.get("format", {})):
        for key, value in holder.get("tags", {}).items():
            if name := _TAGS.get(str(key).lower().partition("-")[0]):
                said[name] = value
    return said


def _facts(
    found: Mapping[str, Any], sound: Mapping[str, Any] | None, picture: Mapping[str, Any] | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": found.get("format", {}).get("format_name")}
    if sound is not None:
        facts |= {
            "audio_codec": sound.get("codec_name"),
            "sample_rate": _whole(sound.get("sample_rate")),
            "channels": _whole(sound.get("channels")),
            "bit_rate": _whole(sound.get("bit_rate") or found.get("format", {}).get("bit_rate")),
        }
    if picture is not None:
        facts |= {
            "video_codec": picture.get("codec_name"),
            "width": _whole(picture.get("width")),
            "height": _whole(picture.get("height")),
        }
    return facts


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
