"""Sound and pictures for models, decoded by real extract workers and a real ffmpeg."""

import os
import shutil
import stat
import struct
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from media_sounds import encoded, write_tone
from PIL import Image

from msearchd import errors
from msearchd.domain.media import SegmentKind
from msearchd.media.client import ChangedWhileReading, Extractors
from msearchd.settings.model import ExtractSettings

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@pytest.fixture
async def extractors():
    made = Extractors(ExtractSettings(ocr=False))
    yield made
    await made.close()


async def _windows(extractors, path):
    found = await extractors.identify(os.fsencode(path))
    extraction = await extractors.extract(os.fsencode(path), found)
    return found, extraction, [(s.t0_ms, s.t1_ms) for s in extraction.segments if s.kind is SegmentKind.AUDIO]


def _peak_hz(sound):
    """By counting where the wave crosses zero upwards."""
    samples = struct.unpack(f"<{len(sound.pcm) // 4}f", sound.pcm)
    crossings = sum(a < 0 <= b for a, b in pairwise(samples))
    return crossings * sound.rate / len(samples)


@pytest.mark.parametrize("ending", ["wav", "mp3", "flac", "ogg", "m4a", "aiff", "mkv"])
async def test_a_sound_of_any_format_is_windows_with_times_and_tags(extractors, tmp_path, ending):
    tone = write_tone(tmp_path / "tone.wav", hz=500, seconds=23.5)
    path = tone if ending == "wav" else encoded(tone, tmp_path / f"named.{ending}", title="Nightfall")
    found, extraction, windows = await _windows(extractors, path)
    assert [t0 for t0, _ in windows] == [0, 10_000, 20_000]
    assert windows[-1][1] == pytest.approx(23_500, abs=60)
    assert ending == "wav" or any("Nightfall" in segment.text for segment in extraction.segments)
    assert extraction.metadata["duration_s"] == pytest.approx(23.5, abs=0.06)
    sounds = await extractors.sounds(os.fsencode(path), found, rate=48_000, spans=windows)
    assert [sound.duration_ms for sound in sounds] == pytest.approx([10_000, 10_000, 3_500], abs=60)
    assert _peak_hz(sounds[1]) == pytest.approx(500, rel=0.02)


async def test_a_place_in_the_middle_is_the_same_sound_as_in_the_whole(extractors, tmp_path):
    low, high = write_tone(tmp_path / "a.wav", hz=300, seconds=20), write_tone(tmp_path / "b.wav", hz=2000, seconds=20)
    path = tmp_path / "both.mp3"
    joined = ["-filter_complex", "[0:a][1:a]concat=n=2:v=0:a=1", str(path)]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(low), "-i", str(high), *joined], check=True)
    found = await extractors.identify(os.fsencode(path))
    [before, after] = await extractors.sounds(
        os.fsencode(path), found, rate=16_000, spans=[(16_000, 19_900), (20_100, 24_000)]
    )
    assert before.duration_ms == 3_900
    assert _peak_hz(before) == pytest.approx(300, rel=0.02)
    assert _peak_hz(after) == pytest.approx(2000, rel=0.06)  # gapless spans are asked for: 0.2 s are those before


async def test_two_channels_become_one_and_the_rate_is_what_was_asked_for(extractors, tmp_path):
    path = write_tone(tmp_path / "stereo.wav", seconds=2, channels=2, rate=22_050)
    found, extraction, windows = await _windows(extractors, path)
    [sound] = await extractors.sounds(os.fsencode(path), found, rate=16_000, spans=windows)
    assert extraction.metadata["channels"] == 2
    assert (sound.rate, sound.duration_ms) == (16_000, 2_000)


async def test_a_file_that_is_no_sound_is_bad_with_the_reason(extractors, tmp_path):
    path = tmp_path / "bad.wav"
    path.write_bytes(b"RIFF\x24\x10\0\0WAVEfmt " + b"\xff" * 3000)
    found = await extractors.identify(os.fsencode(path))
    with pytest.raises(errors.BadAsset, match="no sound or picture can be found"):
        await extractors.extract(os.fsencode(path), found)


async def test_of_a_file_that_was_cut_off_the_part_that_is_there_is_heard(extractors, tmp_path):
    whole = encoded(write_tone(tmp_path / "tone.wav", seconds=23.5), tmp_path / "whole.mp3")
    path = tmp_path / "cut.mp3"
    path.write_bytes(whole.read_bytes()[:50_000])
    found, _, windows = await _windows(extractors, path)
    sounds = await extractors.sounds(os.fsencode(path), found, rate=48_000, spans=windows)
    assert 5_000 < sum(sound.duration_ms for sound in sounds) < 8_000


async def test_a_playlist_with_the_name_of_a_sound_is_not_followed(extractors, tmp_path):
    secret = write_tone(tmp_path / "secret.wav")
    path = tmp_path / "list.mp3"
    path.write_bytes(b"ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n" + os.fsencode(secret) + b"\n")
    found = await extractors.identify(os.fsencode(path))
    with pytest.raises(errors.BadAsset):
        await extractors.extract(os.fsencode(path), found)


async def test_without_ffmpeg_the_job_waits_with_the_line_to_type(tmp_path, monkeypatch):
    path = write_tone(tmp_path / "tone.wav")
    monkeypatch.setenv("PATH", str(tmp_path))
    extractors = Extractors(ExtractSettings())
    try:
        found = await extractors.identify(os.fsencode(path))
        with pytest.raises(errors.Misconfigured, match="not installed") as caught:
            await extractors.extract(os.fsencode(path), found)
        assert caught.value.key == "engine:ffmpeg"
        assert "install ffmpeg" in caught.value.hint
    finally:
        await extractors.close()


async def test_an_ffmpeg_that_hangs_costs_its_file_and_leaves_no_process(tmp_path, monkeypatch):
    path = write_tone(tmp_path / "tone.wav")
    folder = tmp_path / "bin"
    folder.mkdir()
    mark = tmp_path / "pid"
    for name in ("ffmpeg", "ffprobe"):
        script = folder / name
        script.write_text(f"#!/bin/sh\necho $$ > {mark}\nexec sleep 600\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    extractors = Extractors(ExtractSettings(timeout_s=1.0))
    try:
        found = await extractors.identify(os.fsencode(path))
        with pytest.raises(errors.BadAsset, match="longer than 1 s"):
            await extractors.extract(os.fsencode(path), found)
        gone_by = time.monotonic() + 5
        while Path(f"/proc/{mark.read_text().strip()}").exists() and time.monotonic() < gone_by:
            time.sleep(0.02)
        assert not Path(f"/proc/{mark.read_text().strip()}").exists()
    finally:
        await extractors.close()


async def test_a_changed_sound_is_told_and_nothing_of_it_is_used(extractors, tmp_path):
    path = write_tone(tmp_path / "tone.wav")
    found, _, windows = await _windows(extractors, path)
    write_tone(path, hz=900, seconds=4)
    with pytest.raises(ChangedWhileReading):
        await extractors.sounds(os.fsencode(path), found, rate=48_000, spans=windows)


async def test_a_picture_is_upright_and_shrunk_to_its_shorter_side(extractors, tmp_path):
    path = tmp_path / "sideways.jpg"
    image = Image.new("RGB", (3000, 1500), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)
    found = await extractors.identify(os.fsencode(path))
    picture = await extractors.picture(os.fsencode(path), found, short_side=512)
    assert (picture.width, picture.height) == (512, 1024)
    assert picture.rgb[0] > 240
    assert picture.rgb[1] < 20


async def test_a_small_picture_stays_as_it_is_and_a_ribbon_keeps_a_bounded_shape(extractors, tmp_path):
    for name, size, wanted in (("small.png", (64, 48), (64, 48)), ("ribbon.png", (9000, 30), (4096, 14))):
        path = tmp_path / name
        Image.new("RGB", size, "blue").save(path)
        found = await extractors.identify(os.fsencode(path))
        picture = await extractors.picture(os.fsencode(path), found, short_side=512)
        assert (picture.width, picture.height) == wanted


async def test_a_picture_beyond_the_pixel_limit_is_not_decoded(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (1500, 1500)).save(path)
    extractors = Extractors(ExtractSettings(max_image_pixels=1_000_000))
    try:
        found = await extractors.identify(os.fsencode(path))
        assert not [s for s in (await extractors.extract(os.fsencode(path), found)).segments if s.kind == "image"]
        with pytest.raises(errors.BadAsset, match="more than the limit"):
            await extractors.picture(os.fsencode(path), found, short_side=512)
    finally:
        await extractors.close()


async def test_a_page_of_a_pdf_is_a_picture_and_every_page_a_place(extractors, tmp_path):
    path = tmp_path / "two.pdf"
    pages = [Image.new("RGB", (400, 600), colour) for colour in ("white", "red")]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    found = await extractors.identify(os.fsencode(path))
    extraction = await extractors.extract(os.fsencode(path), found)
    assert [s.page for s in extraction.segments if s.kind is SegmentKind.PAGE] == [1, 2]
    second = await extractors.picture(os.fsencode(path), found, page=2, short_side=300)
    assert min(second.width, second.height) == 300
    middle = (second.height // 2 * second.width + second.width // 2) * 3
    assert second.rgb[middle] > 200
    assert second.rgb[middle + 1] < 60
