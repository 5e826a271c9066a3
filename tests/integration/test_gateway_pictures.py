"""Pictures of requests: decoded in a child, whatever they are."""

import asyncio
import io
import os
import shutil
import signal
import struct
import zlib

import pytest
from media_sounds import encoded as encoded_sound
from media_sounds import write_tone
from PIL import Image

from msearchd import errors
from msearchd.gateway import pictures
from msearchd.gateway.pictures import PictureReader
from msearchd.settings.model import ExtractSettings


def encoded(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
async def reader():
    made = PictureReader()
    yield made
    await made.close()


async def test_pixels_come_back_as_they_were(reader):
    raw = os.urandom(7 * 5 * 3)
    found = await reader.read(encoded(Image.frombytes("RGB", (7, 5), raw)))
    assert (found.width, found.height, found.rgb) == (7, 5, raw)


async def test_a_photograph_on_its_side_is_turned(reader):
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6
    found = await reader.read(encoded(picture, "JPEG", exif=exif.tobytes()))
    assert (found.width, found.height) == (20, 40)


async def test_a_large_picture_is_shrunk(reader):
    found = await reader.read(encoded(Image.new("RGB", (4000, 2000), "blue"), "JPEG"))
    assert (found.width, found.height) == (1536, 768)


def bomb(side):
    """A PNG that says it has side x side pixels, in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content", [b"no picture", b"", b"\x89PNG\r\n\x1a\n", bomb(60_000), b"<svg/>"])
async def test_what_cannot_be_decoded_is_bad_and_the_next_one_is_not(reader, content):
    with pytest.raises(errors.BadAsset):
        await reader.read(content)
    assert (await reader.read(encoded(Image.new("L", (3, 3), 255)))).rgb == b"\xff" * 27


async def test_a_killed_decoder_costs_nobody_anything(reader):
    small = encoded(Image.new("RGB", (3, 3)))
    await reader.read(small)
    os.kill(reader._child.child.pid, signal.SIGKILL)
    assert (await reader.read(small)).width == 3


async def test_the_child_rests_when_nobody_sends_pictures(reader, monkeypatch):
    monkeypatch.setattr(pictures, "_REST_S", 0.05)
    await reader.read(encoded(Image.new("RGB", (3, 3))))
    async with asyncio.timeout(10):
        while reader._child.child is not None:
            await asyncio.sleep(0.01)


async def test_many_at_once_take_turns(reader):
    sizes = range(1, 9)
    found = await asyncio.gather(*(reader.read(encoded(Image.new("RGB", (size, 1)))) for size in sizes))
    assert [one.width for one in found] == list(sizes)


async def test_the_pixel_limit_of_the_settings_holds():
    small = PictureReader(ExtractSettings(max_image_pixels=1_000_000))
    try:
        with pytest.raises(errors.BadAsset, match="limit of 1,000,000"):
            await small.read(encoded(Image.new("RGB", (2000, 1000)), "JPEG"))
    finally:
        await small.close()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
class TestSounds:
    @pytest.mark.parametrize(
        ("ending", "mime"), [("wav", ""), ("flac", ""), ("mp3", "audio/mpeg"), ("m4a", "audio/mp4")]
    )
    async def test_a_sound_is_heard_whole_at_the_rate_of_models(self, reader, tmp_path, ending, mime):
        tone = write_tone(tmp_path / "tone.wav", seconds=3)
        path = tone if ending == "wav" else encoded_sound(tone, tmp_path / f"tone.{ending}")
        heard = await reader.hear(path.read_bytes(), mime)
        assert heard.rate == 48_000
        assert heard.duration_ms == pytest.approx(3_000, abs=100)

    async def test_a_sound_of_ten_seconds_is_heard_and_a_longer_one_refused(self, reader, tmp_path):
        assert (await reader.hear(write_tone(tmp_path / "a.wav", seconds=10).read_bytes(), "")).duration_ms == 10_000
        with pytest.raises(errors.BadAsset, match="longer than 10 s"):
            await reader.hear(write_tone(tmp_path / "b.wav", seconds=12).read_bytes(), "")

    @pytest.mark.parametrize("content", [b"RIFF" + bytes(200), b"#EXTM3U\nhttp://127.0.0.1/x", b"x", os.urandom(500)])
    async def test_what_is_no_sound_is_refused_in_a_sentence(self, reader, content):
        with pytest.raises(errors.BadAsset):
            await reader.hear(content, "audio/mpeg")
