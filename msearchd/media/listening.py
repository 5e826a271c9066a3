"""A decoder that stays open between the requests of one sound, so that ffmpeg starts once a file and not once a portion. Child
side.

In: requests for places of a sound. Out: their PCM. The next request of the same bytes that begins where the last one ended
goes on in the same child, which waits at its full pipe meanwhile: memory does not grow with the length. Any other request, a
minute of rest or the end of the sound closes it. A child that ended too soon for a later request is never taken for the
sound's end: a fresh one begins at that place, as if none had been kept.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Final

from msearchd.domain.asset import StatFingerprint
from msearchd.media import ffmpeg
from msearchd.media.source import Source

#: Between two requests a model hears what it got. Starting again costs a tenth of a second.
_REST_S: Final = 60.0


@dataclass(slots=True)
class _Open:
    """A decoder, and the sample at which it is: *rest* was read and not yet asked for."""

    sound: tuple[bytes, StatFingerprint, int]  # path, its bytes, rate
    child: ffmpeg.Running
    parts: Iterator[bytes]
    start_ms: int
    at: int = 0  # samples given, from start_ms on
    rest: bytes = b""
    requests: int = 0
    expiry: threading.Timer | None = field(default=None)

    def is_at(self, start_ms: int) -> bool:
        """True where *start_ms* is the next sample."""
        return start_ms >= self.start_ms and _samples(start_ms - self.start_ms, self.sound[2]) == self.at


class Listening:
    """One decoder at most is open. Requests come one at a time; only the end of its rest comes from another thread."""

    def __init__(self, *, rest_s: float = _REST_S) -> None:
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._open: _Open | None = None

    def pcm(
        self, source: Source, label: str, *, rate: int, start_ms: int, length_ms: int
    ) -> Generator[bytes, None, None]:
        """As ffmpeg.pcm. Read to its last sample, its decoder is kept; closed before, it is not."""
        sound = (source.path, source.fingerprint, rate)
        want = 4 * _samples(length_ms, rate)
        given = 0
        kept = self._taken(sound, start_ms)
        one = kept or self._begun(source, label, sound=sound, start_ms=start_ms)
        try:
            while True:
                before, given = given, 0  # a fresh decoder says again what was given before it
                with contextlib.closing(_next_parts(one, want)) as parts:
                    for part in parts:
                        given += len(part)
                        if given > before:
                            yield part[max(0, len(part) - (given - before)) :]
                if kept is None or given == want or (given and one.child.ended_well()):
                    break
                kept.child.close()  # killed or gone astray meanwhile: what a fresh one says of this place counts
                kept, one = None, self._begun(source, label, sound=sound, start_ms=start_ms)
            if not given and not before:
                ffmpeg.refuse_silence(one.child)
        finally:
            if given == want:
                self._keep(one)
            else:
                one.child.close()

    def close(self) -> None:
        """End the decoder that is kept."""
        with self._lock:
            kept, self._open = self._open, None
        if kept is not None:
            if kept.expiry is not None:
                kept.expiry.cancel()
            kept.child.close()

    def _taken(self, sound: tuple[bytes, StatFingerprint, int], start_ms: int) -> _Open | None:
        """The kept decoder if it is of use; else it is closed."""
        with self._lock:
            kept, self._open = self._open, None
        if kept is None:
            return None
        if kept.expiry is not None:
            kept.expiry.cancel()
        if kept.sound == sound and kept.is_at(start_ms):
            return kept
        kept.child.close()
        return None

    @staticmethod
    def _begun(source: Source, label: str, *, sound: tuple[bytes, StatFingerprint, int], start_ms: int) -> _Open:
        child = ffmpeg.decoder(source, label, rate=sound[2], start_ms=start_ms, length_ms=None)
        return _Open(sound, child, ffmpeg.samples_of(child), start_ms)

    def _keep(self, one: _Open) -> None:
        one.expiry = threading.Timer(self._rest_s, self._expire, (one,))
        one.expiry.daemon = True
        with self._lock:
            self._open = one
            one.expiry.start()

    def _expire(self, one: _Open) -> None:
        with self._lock:
            if self._open is not one:  # somebody came in the same moment
                return
            self._open = None
        one.child.close()


def _next_parts(one: _Open, want: int) -> Generator[bytes, None, None]:
    """Bytes of the sound, *want* at most and never one more; what is left over stays in *one*."""
    one.requests += 1
    with one.child.limited(times=one.requests):
        while want and (part := one.rest or next(one.parts, b"")):
            part, one.rest = part[:want], part[want:]
            want -= len(part)
            one.at += len(part) // 4
            yield part


def _samples(time_ms: int, rate: int) -> int:
    return time_ms * rate // 1000
