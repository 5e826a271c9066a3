"""One decoder for all requests of a sound: the same samples as one pass, and never an end that is not there."""

import asyncio
import contextlib
import os
import shutil
import time
from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_sounds import encoded, write_tone

from msearchd import errors
from msearchd.media import ffmpeg
from msearchd.media.client import Extractors
from msearchd.media.listening import Listening
from msearchd.media.source import opened
from msearchd.settings.model import ExtractSettings

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")

RATE = 8000


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    return write_tone(tmp_path_factory.mktemp("tone") / "tone.wav", hz=500, seconds=20)


@pytest.fixture
def starts(monkeypatch):
    """Names of the decoders that were started."""
    found = []
    real = ffmpeg.decoder

    def counted(source, *args, **more):
        found.append((source.name, more["start_ms"]))
        return real(source, *args, **more)

    monkeypatch.setattr(ffmpeg, "decoder", counted)
    return found


@pytest.fixture
def listening():
    made = Listening()
    yield made
    made.close()


def heard(listening, path, start_ms, length_ms, label="wav"):
    with (
        opened(os.fsencode(path)) as source,
        contextlib.closing(listening.pcm(source, label, rate=RATE, start_ms=start_ms, length_ms=length_ms)) as parts,
    ):
        return b"".join(parts)


def in_one_pass(path, label="wav"):
    with opened(os.fsencode(path)) as source:
        return b"".join(ffmpeg.pcm(source, label, rate=RATE, start_ms=0, length_ms=1_000_000))


def of(whole, start_ms, length_ms):
    return whole[4 * RATE * start_ms // 1000 : 4 * RATE * (start_ms + length_ms) // 1000]


def is_alike(one, other):
    """The same samples but for the first and last 20 ms, where a filter that just began knows no neighbours."""
    edge = RATE // 50
    pairs = list(zip(array("f", one), array("f", other), strict=True))[edge:-edge]
    return len(one) == len(other) and all(abs(a - b) < 0.01 for a, b in pairs)


def test_portions_of_a_sound_are_the_sound_and_start_ffmpeg_once(tone, listening, starts):
    portions = [heard(listening, tone, start_ms, 3_000) for start_ms in range(0, 21_000, 3_000)]
    assert len(starts) == 1
    assert b"".join(portions) == in_one_pass(tone)


def test_after_its_end_nothing_comes_and_nothing_is_left_open(tone, listening):
    heard(listening, tone, 0, 20_000)
    assert heard(listening, tone, 20_000, 3_000) == b""
    assert listening._open is None


def test_another_place_another_file_and_a_changed_file_begin_anew(tone, tmp_path, listening, starts):
    other = tmp_path / "other.wav"
    shutil.copy(tone, other)
    for path, start_ms in ((tone, 0), (tone, 5_000), (other, 6_000), (other, 7_000)):
        heard(listening, path, start_ms, 1_000)
    assert starts == [("tone.wav", 0), ("tone.wav", 5_000), ("other.wav", 6_000)]
    os.utime(other, ns=(1, 1))
    heard(listening, other, 8_000, 1_000)
    assert starts[3:] == [("other.wav", 8_000)]


def test_a_request_that_was_given_up_keeps_no_decoder(tone, listening):
    with opened(os.fsencode(tone)) as source:
        parts = listening.pcm(source, "wav", rate=RATE, start_ms=0, length_ms=20_000)
        next(parts)
        child = listening._open
        parts.close()
    assert child is None
    assert listening._open is None


def test_a_decoder_that_died_meanwhile_is_not_the_end_of_the_sound(tone, listening, starts):
    first = heard(listening, tone, 0, 1_000)
    listening._open.child.kill()
    listening._open.child._child.wait()
    rest = b""
    for start_ms in range(1_000, 20_000, 1_000):
        rest += heard(listening, tone, start_ms, 1_000)
    whole = in_one_pass(tone)
    assert len(starts) == 3  # the one of in_one_pass too
    assert is_alike(rest, whole[len(first) :])


def test_a_decoder_that_rests_for_long_is_ended(tone, starts):
    listening = Listening(rest_s=0.1)
    heard(listening, tone, 0, 1_000)
    child = listening._open.child
    until = time.monotonic() + 5
    while listening._open is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert child._child.wait(timeout=5) is not None
    heard(listening, tone, 1_000, 1_000)
    assert len(starts) == 2
    listening.close()


def test_what_cannot_be_decoded_is_bad_with_the_reason(tmp_path, listening):
    path = tmp_path / "no.wav"
    path.write_bytes(b"RIFF" + bytes(1000))
    with pytest.raises(errors.BadAsset, match="cannot be decoded"):
        heard(listening, path, 0, 1_000)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 21), st.integers(1, 9)), min_size=1, max_size=5))
def test_whatever_is_asked_for_in_whatever_order_is_that_place_of_the_sound(tone, listening, places):
    whole = in_one_pass(tone)
    for start_s, length_s in places:
        for at in (start_s, start_s + length_s):  # twice: the second one may go on where the first one ended
            assert is_alike(heard(listening, tone, at * 1000, length_s * 1000), of(whole, at * 1000, length_s * 1000))


async def test_two_sounds_in_turns_are_each_decoded_by_the_worker_that_has_them_open(tone, tmp_path):
    other = encoded(tone, tmp_path / "other.mp3")
    readers = Extractors(ExtractSettings(ocr=False, workers=2))
    try:
        facts = {path: await readers.identify(os.fsencode(path)) for path in (tone, other)}
        pids = {tone: set(), other: set()}

        async def hear(path, start_ms):
            spans = [(start_ms, start_ms + 3_000)]
            await readers.sounds(os.fsencode(path), facts[path], rate=48_000, spans=spans)

        for start_ms in range(0, 15_000, 3_000):
            await asyncio.gather(*(hear(path, start_ms) for path in facts))
            for path in facts:
                pids[path] |= _decoders_of(path)
        assert [len(seen) for seen in pids.values()] == [1, 1]
    finally:
        await readers.close()


def _decoders_of(path):
    """Processes of ffmpeg that have *path* open."""
    found = set()
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            is_ffmpeg = os.readlink(f"/proc/{pid}/exe").endswith("/ffmpeg")
            if is_ffmpeg and any(os.readlink(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir()):
                found.add(pid)
    return found
