"""faster-whisper: speech to timed text, voice activity first; no torch.

In: sound of any rate. Out: what is said, piece by piece. Silence never reaches the model: Silero VAD (in the wheel) cuts it
out, and with it most of what Whisper makes up where nobody speaks. Never fetches anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Sound, TimedText
from msearchd.inference import roster
from msearchd.inference.worker.engines.base import EngineFacts, LoadOrder, load_errors

RATE: Final = 16_000
_KEY: Final = "engine:whisper"
#: Silero's own defaults but for the silence that ends a piece: 2 s there, and a quarter of it finds turns of a talk.
_MIN_SILENCE_MS: Final = 500
_LONGEST_PIECE_S: Final = 30.0  # what the encoder hears at a time
#: float32 is the settings' default and means "as is best": transcripts are no vectors, nothing compares them by number.
#: int8 on a CPU is 5 times as fast for the same words (faster-whisper's README).
_BY_DEVICE: Final = {"cpu": ("int8", "float32"), "cuda": ("float16", "int8_float16", "float32")}


class WhisperEngine:
    """A Transcriber over a Whisper in CTranslate2's format."""

    def __init__(self) -> None:
        self._model: Any = None
        self._options: Any = None

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("whisper", extra=roster.ENGINES["whisper"].install_line, folder=order.folder):
            import ctranslate2
            import faster_whisper
            import numpy as np
            from faster_whisper.vad import VadOptions, get_speech_timestamps

            _require_format(ctranslate2, order.folder)
            kind, index = _device(order.device, ctranslate2.get_cuda_device_count())
            numbers = _compute_type(order.dtype, kind, ctranslate2.get_supported_compute_types(kind))
            self._model = faster_whisper.WhisperModel(
                order.folder,
                device=kind,
                device_index=index,
                compute_type=numbers,
                cpu_threads=order.threads,
                num_workers=1,
                local_files_only=True,
            )
            self._options = VadOptions(min_silence_duration_ms=_MIN_SILENCE_MS, max_speech_duration_s=_LONGEST_PIECE_S)
            get_speech_timestamps(np.zeros(RATE, dtype=np.float32), self._options)  # loads it, and proves that it runs
        return EngineFacts(
            dim=0,
            max_tokens=int(self._model.max_length),
            device=f"{kind}:{index}" if kind == "cuda" else kind,
            dtype=numbers,
            versions={"faster-whisper": faster_whisper.__version__, "ctranslate2": ctranslate2.__version__},
            kinds=("speech",),
        )

    def transcribe(self, sound: Sound, *, language: str = "") -> Iterator[TimedText]:
        """As Transcriber.transcribe. Raises BadRequest for a language that the model does not know, BadAsset for NaNs."""
        from faster_whisper.vad import get_speech_timestamps

        model = self._model
        if model is None:
            message = "transcribe before load"
            raise RuntimeError(message)
        if language and language not in model.supported_languages:
            message = f"this Whisper does not know the language {language!r}"
            known = ", ".join(sorted(model.supported_languages)[:12])
            raise errors.BadRequest(message, hint=f"it knows {known} ...; or let it find out" if known else "")
        samples = _at_16_khz(sound)
        if not get_speech_timestamps(samples, self._options):
            return
        pieces, _ = model.transcribe(
            samples,
            language=language or None,
            vad_filter=True,
            vad_parameters=self._options,
            condition_on_previous_text=False,  # with it, one made-up sentence repeats to the end of the file
        )
        for piece in pieces:
            if text := piece.text.strip():
                t0_ms = min(max(0, round(piece.start * 1000)), sound.duration_ms)
                yield TimedText(t0_ms, min(max(t0_ms, round(piece.end * 1000)), sound.duration_ms), text)

    def close(self) -> None:
        """As Engine.close."""
        self._model = None


def _require_format(ctranslate2: Any, folder: str) -> None:
    if ctranslate2.contains_model(folder):
        return
    message = f"{folder} is no Whisper in the format of CTranslate2 (model.bin)"
    hint = (
        f"type: ct2-transformers-converter --model {folder} --output_dir {folder}-ct2 --quantization int8 "
        "--copy_files tokenizer.json preprocessor_config.json - and name the new folder; "
        "or take one that is converted, such as Systran/faster-whisper-small"
    )
    raise errors.Misconfigured(message, key=f"source:{folder}", hint=hint)


def _device(asked: str, cuda_count: int) -> tuple[str, int]:
    """CTranslate2's kind and index of device. Raises Misconfigured where it is not there."""
    kind, _, index = asked.partition(":")
    if kind == "auto":
        return ("cuda" if cuda_count else "cpu"), 0
    if kind == "mps":
        return "cpu", 0  # CTranslate2 knows no Apple GPU; its CPU kernels use Accelerate
    number = int(index) if index.isdecimal() else 0
    if kind == "cpu" or (kind == "cuda" and number < cuda_count):
        return kind, number
    message = f"CTranslate2 sees no device {asked!r} ({cuda_count} CUDA devices)"
    raise errors.Misconfigured(message, key=f"device:{asked}", hint='set device = "auto" or "cpu"')


def _compute_type(dtype: str, kind: str, supported: set[str]) -> str:
    wanted = _BY_DEVICE[kind] if dtype == "float32" else (dtype,)
    if (found := next((numbers for numbers in wanted if numbers in supported), "")) == "":
        message = f"Whisper cannot compute in {' or '.join(wanted)} on this {kind}"
        raise errors.Misconfigured(message, key=_KEY, hint='set dtype = "float32": the best for the device is taken')
    return found


def _at_16_khz(sound: Sound) -> Any:
    """float32[n] at 16 kHz. Raises BadAsset where a sample is no number."""
    import numpy as np

    samples = np.frombuffer(sound.pcm, dtype="<f4")
    if not np.isfinite(samples).all():
        message = "the sound has samples that are no number"
        raise errors.BadAsset(message)
    if sound.rate == RATE or not len(samples):
        return samples.astype(np.float32)
    import av  # FFmpeg's resampler; faster-whisper brings it

    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="mono")
    frame.sample_rate = sound.rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    parts = [part.to_ndarray().reshape(-1) for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts).astype(np.float32)
