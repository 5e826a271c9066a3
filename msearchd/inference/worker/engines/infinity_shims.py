"""What infinity-emb 0.0.78 needs to be safe and right: hardening, bucketed padding, plain processors, nothing opened.

Each function changes loaded replicas (or the library's modules) in place and says why; a line per measured fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn


class Failed(float):
    """An error that travels as the result of each item of its batch; a float, for the library sorts scores."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Not a number, and the *error* with it."""
        failed = cls("nan")
        failed.error = error
        return failed


def harden(replicas: Sequence[Any]) -> None:
    """Make exceptions of the three pipeline steps values of their batch, so that no thread dies and no caller hangs."""
    for model in replicas:
        _harden_one(model)


def _harden_one(model: Any) -> None:
    pre, core, post = model.encode_pre, model.encode_core, model.encode_post

    def safe_pre(items: Sequence[Any]) -> tuple[int, Any, Exception | None]:
        try:
            return len(items), pre(items), None
        except Exception as error:  # noqa: BLE001 - travels to the caller as a value
            return len(items), None, error

    def safe_core(state: tuple[int, Any, Exception | None]) -> tuple[int, Any, Exception | None]:
        count, features, error = state
        if error is None:
            try:
                return count, core(features), None
            except Exception as caught:  # noqa: BLE001 - the same
                error = caught
        return count, None, error

    def safe_post(state: tuple[int, Any, Exception | None], **options: Any) -> Any:
        count, out, error = state
        if error is None:
            try:
                return post(out, **options)
            except Exception as caught:  # noqa: BLE001 - the same
                error = caught
        return [Failed.of(error)] * count

    model.encode_pre, model.encode_core, model.encode_post = safe_pre, safe_core, safe_post


def pad_to_multiple(tokenizer: Any, limit: int) -> None:
    """Let *tokenizer*'s batches be multiples of 16 tokens wide where the limit is one too (bucketed kernel shapes)."""
    if limit % 16 or not hasattr(type(tokenizer), "_call_one"):
        return
    original = tokenizer._call_one  # noqa: SLF001 - __call__ is looked up on the class; this is the first thing it calls

    def bucketed(*arguments: Any, **options: Any) -> Any:
        if options.get("padding") and options.get("pad_to_multiple_of") is None:
            options["pad_to_multiple_of"] = 16
        return original(*arguments, **options)

    tokenizer._call_one = bucketed  # noqa: SLF001


def shim_transformers_5(transformers: Any) -> None:
    """Give transformers 5 back the one method that infinity-emb's text path calls; does nothing under 4."""
    base = transformers.PreTrainedTokenizerBase
    if hasattr(base, "batch_encode_plus"):
        return

    def batch_encode_plus(self: Any, texts: Any, **options: Any) -> Any:
        options.pop("return_length", None)
        return self(texts, **options)

    base.batch_encode_plus = batch_encode_plus


@dataclass(frozen=True, slots=True)
class ReadyPicture:
    """A picture whose tensors are made, so that the pipeline has only to join them; it sorts by `height`."""

    height: int
    features: dict[str, Any]


class PlainProcessor:
    """Stands for the processor of CLIP, SigLIP or CLAP in a replica: the same tokenizer and image or sound processor.

    Pictures are made ready ahead of the device, by `ready_picture`. The library cuts texts at `config.max_length` (20 by
    default in transformers 4), or cuts their end token off, and uses arguments that transformers 5 refuses. Texts are
    cut at *limit* tokens, and padded to it for SigLIP.
    """

    def __init__(self, processor: Any, *, limit: int, pads_whole: bool) -> None:
        self.tokenizer = processor.tokenizer
        self._seen = getattr(processor, "image_processor", None) or refuse
        self.feature_extractor = getattr(processor, "feature_extractor", None)
        self._limit = limit
        self._padding = "max_length" if pads_whole else True

    def ready_picture(self, image: Any) -> ReadyPicture:
        """*image* (PIL) with the tensors that the model takes."""
        return ReadyPicture(image.height, dict(self._seen([image], return_tensors="pt")))

    def __call__(self, *, text: Any = None, images: Any = None, audios: Any = None, **_options: Any) -> dict[str, Any]:
        """Tensors of the given texts, pictures (ReadyPicture) or sounds (float32[n] at the model's rate)."""
        features: dict[str, Any] = {}
        if text:
            options: dict[str, Any] = {"padding": self._padding, "truncation": True, "max_length": self._limit}
            features |= dict(self.tokenizer(text, return_tensors="pt", **options))
        if images:
            import torch

            features |= {name: torch.cat([one.features[name] for one in images]) for name in images[0].features}
        if audios and self.feature_extractor is not None:
            rate = self.feature_extractor.sampling_rate
            features |= dict(self.feature_extractor(audios, sampling_rate=rate, return_tensors="pt"))
        features.pop("token_type_ids", None)
        return features


def take_pooled(replica: Any) -> None:
    """Let transformers 5's answers (an output with `pooler_output`) pass for 4's (a tensor)."""
    original = replica._normalize_cpu  # noqa: SLF001 - where both towers' answers go through

    def normalize(tensor: Any, *arguments: Any, **options: Any) -> Any:
        pooled = getattr(tensor, "pooler_output", tensor)
        return original(None if pooled is None else pooled.float(), *arguments, **options)

    replica._normalize_cpu = normalize  # noqa: SLF001


def open_nothing() -> None:
    """Take decoded pictures and sounds as they are. The library would fetch a str, and decode bytes by itself."""
    from infinity_emb.inference import batch_handler
    from infinity_emb.primitives import AudioSingle, ImageSingle

    async def images(given: Sequence[Any]) -> list[Any]:
        return [ImageSingle(image=it) if hasattr(it, "height") else refuse(it) for it in given]

    async def audios(given: Sequence[Any], rate: int) -> list[Any]:
        return [AudioSingle(audio=it, sampling_rate=rate) if hasattr(it, "dtype") else refuse(it) for it in given]

    batch_handler.resolve_images = images
    batch_handler.resolve_audios = audios


def refuse(given: object, **_options: Any) -> NoReturn:
    """Raise TypeError: this model does not take such a sample, or it is not decoded."""
    message = f"only decoded samples are embedded, not a {type(given).__name__}"
    raise TypeError(message)
