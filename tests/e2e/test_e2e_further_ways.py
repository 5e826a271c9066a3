"""What `explain` says of sounds, pictures and pages that no model of the settings reads."""

import shutil
import subprocess

import pytest
from tiny_models import drawings, sounds


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_explain_says_which_setting_would_make_sound_pictures_and_videos_findable_by_content(words_daemon):
    home = words_daemon
    drawings.draw("red circle", seed=1).save(home.files / "a.png")
    sounds.write_wav(home.files / "a.wav", sounds.make("high tone", seed=1, seconds=1.0))
    source = ["-f", "lavfi", "-i", "testsrc=d=1:s=64x64:r=5", "-f", "lavfi", "-i", "sine=d=1"]
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", *source, home.files / "a.mp4"], check=True, stdin=subprocess.DEVNULL
    )
    (home.files / "a.txt").write_text("words alone")
    home.add(home.files)
    home.sync()
    sentences = {name: home.explain(home.files / name)["sentence"] for name in ("a.png", "a.wav", "a.mp4", "a.txt")}
    assert "image_model (CLIP or SigLIP)" in sentences["a.png"]
    for name in ("a.wav", "a.mp4"):
        assert "audio_model (CLAP)" in sentences[name], sentences
        assert "speech_model (Whisper)" in sentences[name], sentences
        assert "[inference]" in sentences[name]
    assert "model" not in sentences["a.txt"]
