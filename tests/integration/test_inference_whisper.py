"""The whisper engine over a tiny random Whisper: nonsense, but timed, streamed and only where somebody speaks."""

import subprocess
from pathlib import Path

import pytest

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.sample import Sound
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.whisper import WhisperEngine
from msearchd.settings.model import EmbeddingModel, InferenceSettings

pytest.importorskip("faster_whisper", reason="type: msearchd engines install whisper")
SPEECH = "The ferry to the island leaves at noon. Bring your own bread."


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    import warnings

    from tiny_models import whisper

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return whisper.save(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture(scope="module")
def engine(folder) -> WhisperEngine:
    made = WhisperEngine()
    made.load(LoadOrder(folder=str(folder), device="cpu", serves="speech"))
    return made


@pytest.fixture(scope="module")
def spoken() -> bytes:
    """PCM at 16 kHz of ffmpeg's own voice."""
    voice = f"flite=text='{SPEECH}'"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", voice, "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this ffmpeg has no voice (libflite)")
    return done.stdout


def silence(seconds: float, rate: int = 16_000) -> bytes:
    return bytes(4 * int(seconds * rate))


def at_48_khz(pcm: bytes) -> bytes:
    command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", "16000", "-ac", "1", "-i", "-", "-ar", "48000"]
    return subprocess.run([*command, "-f", "f32le", "-"], input=pcm, capture_output=True, check=True).stdout


def test_speech_is_timed_from_the_start_of_the_sound_and_lies_in_it(engine, spoken):
    pieces = list(engine.transcribe(Sound(16_000, silence(5) + spoken + silence(3))))
    assert pieces
    # The voice has pads of 400 ms: what the model writes lies where somebody speaks.
    assert 4_500 <= pieces[0].t0_ms <= 6_500
    assert all(0 <= piece.t0_ms <= piece.t1_ms <= 5_000 + len(spoken) // 64 + 3_000 for piece in pieces)
    assert all(piece.text == piece.text.strip() != "" for piece in pieces)


def test_silence_and_noise_without_speech_never_reach_the_model(engine, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(engine._model, "transcribe", refuse)
    assert list(engine.transcribe(Sound(16_000, silence(4)))) == []
    assert list(engine.transcribe(Sound(48_000, silence(2, 48_000)))) == []
    assert list(engine.transcribe(Sound(16_000, b""))) == []


def test_another_rate_is_resampled_to_the_same_voice(engine, spoken):
    from msearchd.inference.worker.engines.whisper import _at_16_khz

    once, twice = _at_16_khz(Sound(16_000, spoken)), _at_16_khz(Sound(48_000, at_48_khz(spoken)))
    count = min(len(once), len(twice))
    assert abs(len(once) - len(twice)) < 50
    import numpy as np

    best = max(
        float(np.corrcoef(once[100 + shift : count - 100 + shift], twice[100 : count - 100])[0, 1])
        for shift in range(-50, 51)
    )
    assert best > 0.98
    assert list(engine.transcribe(Sound(48_000, silence(1, 48_000) + at_48_khz(spoken))))


def test_a_language_that_it_does_not_know_is_told(engine):
    with pytest.raises(errors.BadRequest, match="xx") as caught:
        list(engine.transcribe(Sound(16_000, silence(1)), language="xx"))
    assert "en" in caught.value.hint


def test_samples_that_are_no_number_are_a_bad_file(engine):
    with pytest.raises(errors.BadAsset, match="no number"):
        list(engine.transcribe(Sound(16_000, b"\x00\x00\xc0\x7f" * 16_000)))


def test_it_computes_in_int8_on_a_cpu_unless_told_otherwise(folder):
    assert WhisperEngine().load(LoadOrder(folder=str(folder), device="cpu", serves="speech")).dtype == "int8"


def test_a_checkpoint_of_transformers_is_refused_with_the_line_that_converts_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(errors.Misconfigured, match="CTranslate2") as caught:
        WhisperEngine().load(LoadOrder(folder=str(tmp_path), serves="speech"))
    assert "ct2-transformers-converter --model" in caught.value.hint


def test_a_device_that_is_not_there_is_told(folder):
    with pytest.raises(errors.Misconfigured, match="cuda:9"):
        WhisperEngine().load(LoadOrder(folder=str(folder), device="cuda:9", serves="speech"))


async def test_through_pool_and_wire_pieces_arrive_one_by_one(folder, spoken, tmp_path):
    model = EmbeddingModel(name="speech", source=str(folder), serves="speech", threads=1)
    settings = InferenceSettings(models=(model,), text_model="", speech_model="speech")
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    try:
        sound = Sound(16_000, silence(1) + spoken + silence(2))
        stream = pool.transcribe(sound, model=ModelKey("speech"), lane=Lane.BULK, deadline_s=60)
        pieces = [piece async for piece in stream]
        (status,) = pool.snapshot().models
    finally:
        await pool.close()
    assert pieces
    assert status.engine == "whisper"
    assert all(piece.text for piece in pieces)
