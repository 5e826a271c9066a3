"""colpali-engine: page images, pictures and sounds to many vectors each, questions beside them (late interaction).

    ColPali, ColQwen2, ColQwen2_5, ColQwen3, ColIdefics3, ...   text, image
    ColQwen2_5Omni                                              text, image, audio
Texts and pictures are made tensors in `prepare`, ahead of the device; `embed` only joins them. Rows of padding are zeros
in the library's answer and are left out here. Runs in an environment of its own, for it needs a torchvision. Never fetches
anything; a question's own words are never taken for the model's marks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Picture, Sample, Sound
from msearchd.inference import roster, weights
from msearchd.inference.worker.engines import decoded, late
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors, pick_device

_KEY: Final = "engine:colpali"
#: Model class of colpali-engine -> its processor.
PROCESSORS: Final = {
    "ColPali": "ColPaliProcessor",
    "ColQwen2": "ColQwen2Processor",
    "ColQwen2_5": "ColQwen2_5_Processor",
    "ColQwen3": "ColQwen3Processor",
    "ColQwen3_5": "ColQwen3_5Processor",
    "ColIdefics3": "ColIdefics3Processor",
    "ColGemma3": "ColGemmaProcessor3",
    "ColModernVBert": "ColModernVBertProcessor",
    "ColQwen2_5Omni": "ColQwen2_5OmniProcessor",
}
_OMNI: Final = "ColQwen2_5Omni"
_PALI: Final = "ColPali"
_HEARS_HZ: Final = 16_000
_HEARS_S: Final = 300.0  # and its mel spectrogram is always padded to that


class ColpaliEngine:
    """An Engine of many vectors per sample."""

    def __init__(self) -> None:
        self._model: Any = None
        self._processor: Any = None
        self._words: Any = None
        self._name = ""
        self._kinds: tuple[str, ...] = ()
        self._most_patches = 0
        self._alone = threading.Lock()  # processors promise nothing about threads

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("colpali", extra=roster.ENGINES["colpali"].install_line, folder=order.folder):
            import torch
            import transformers
            from colpali_engine import models

            name = _class_name(Path(order.folder), transformers.__version__)
            torch.set_num_threads(order.threads)
            device = pick_device(order.device)
            model_class, processor_class = getattr(models, name), getattr(models, PROCESSORS[name])
            model = model_class.from_pretrained(
                order.folder,
                dtype=getattr(torch, order.dtype),
                device_map=device,  # and not .to(device) later: what no file holds (ColPali's lm_head) has no data to move
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
            )
            self._model = model.eval()
            self._processor = processor_class.from_pretrained(order.folder, local_files_only=True)
            self._name = name
            limit = order.max_tokens or late.QUESTION_TOKENS
            prompts = {"query": order.query_prompt, "document": order.document_prompt}
            self._words = late.PlainWords(self._processor, prompts=prompts, limit=limit)
            self._kinds = (
                ("text", "image", "audio") if hasattr(self._processor, "process_audios") else ("text", "image")
            )
            self._most_patches = late.most_patches(self._processor)
            self._require(order.serves, name)
            out = self.embed(self.prepare(["dimension"], role="query"), [0], width=16)
        return EngineFacts(
            dim=out.data.nbytes // 4 // (out.rows or (1,))[0],
            max_tokens=limit,
            device=device,
            dtype=order.dtype,
            versions={
                "colpali-engine": _version("colpali-engine"),
                "transformers": transformers.__version__,
                "torch": torch.__version__,
            },
            kinds=self._kinds,
            multi=True,
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Raises BadAsset for a kind that the model does not take."""
        kind = {"str": "text", "Picture": "image", "Sound": "audio"}.get(type(samples[0]).__name__, "pair")
        if kind not in self._kinds:
            message = f"this model reads {', '.join(self._kinds)}, not {kind}"
            raise errors.BadAsset(message)
        made = [self._ready(sample, role) for sample in samples]
        return Prepared([item for item, _ in made], [cost for _, cost in made], role, kind)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import torch

        del width  # as wide as the longest
        chosen = [prepared.items[index] for index in items]
        with torch.inference_mode():
            features = (
                self._heard(chosen) if prepared.kind == "audio" else late.joined(chosen, self._processor.tokenizer)
            )
            out = self._model(
                **{name: value.to(self._model.device) for name, value in features.items()}, **self._sparing()
            )
            each = [rows[rows.abs().sum(-1) > 0] for rows in out.float()]
        return _answer(each)

    def close(self) -> None:
        """As Engine.close."""
        self._model = None

    def _ready(self, sample: Sample, role: str) -> tuple[Any, int]:
        """The tensors of *sample*, as a batch of one, and its cost; a sound stays samples."""
        if isinstance(sample, Sound):
            # Its spectrogram is one of 300 s whatever its length, 15 MB: made for the batch at work alone.
            return _at_16_khz(sample), int(_HEARS_S * 100)
        if isinstance(sample, Picture):
            image = decoded.as_image(sample)
            with self._alone:
                features = dict(self._processor.process_images([image]))
            return late.kept(features), late.page_cost(image.size, most_patches=self._most_patches)
        make = self._processor.process_queries if role == "query" else self._processor.process_texts
        with self._alone:
            text, cost = self._words.ready(str(sample), role=role)
            features = dict(make([text]))
        if self._name == _PALI:
            # Without it, transformers 5 reads a text forwards only as soon as a longer one pads it; ColPali was trained
            # to see all of it, as transformers 4 does: 0 means "part of the prefix" (measured: cosine 0.63 otherwise).
            features["token_type_ids"] = features["input_ids"] * 0
        return late.kept(features), cost

    def _heard(self, sounds: list[Any]) -> dict[str, Any]:
        with self._alone:
            return dict(self._processor.process_audios(sounds))

    def _sparing(self) -> dict[str, int]:
        """What keeps ColPali from scoring each word of its vocabulary at each patch: a GB a page, for nothing."""
        return {"logits_to_keep": 1} if self._name == _PALI else {}

    def _require(self, serves: str, name: str) -> None:
        needed = {"page": "image", "image": "image", "audio": "audio", "text": "text"}.get(serves, serves)
        if needed not in self._kinds:
            message = f"{name} reads {', '.join(self._kinds)}, not {needed}"
            raise errors.Misconfigured(message, key=_KEY, hint="choose another model, or correct its serves")


def _class_name(folder: Path, transformers_version: str) -> str:
    name, _ = weights.describe_form(folder)
    if name not in PROCESSORS:
        message = f"{folder} is no model of colpali-engine (config.json names {name or 'no architecture'})"
        hint = 'set engine = "sentence_transformers" (models whose name ends in -hf), or choose another model'
        raise errors.Misconfigured(message, key=_KEY, hint=hint)
    if name == _OMNI and tuple(map(int, transformers_version.split(".")[:2])) >= (5, 21):
        # Its tree of modules changed there; loading fails with "no attribute 'visual'".
        message = f"{_OMNI} does not work with transformers {transformers_version}"
        raise errors.Misconfigured(message, key=_KEY, hint="type: msearchd engines install colpali")
    return name


def _at_16_khz(sound: Sound) -> Any:
    """float32[n] at 16 kHz, at most 300 s. Raises BadAsset as decoded.as_samples."""
    import numpy as np

    samples = decoded.as_samples(sound, rate=sound.rate, longest_s=_HEARS_S)
    if sound.rate == _HEARS_HZ:
        return samples
    from scipy.signal import resample_poly  # colpali-engine brings it

    shared = math.gcd(sound.rate, _HEARS_HZ)
    return resample_poly(samples, _HEARS_HZ // shared, sound.rate // shared).astype(np.float32)


def _answer(each: list[Any]) -> Embedded:
    """float32 rows of all items one after the other, and how many each has."""
    import numpy as np
    import torch

    rows = torch.nn.functional.normalize(torch.cat(each), p=2, dim=-1)  # exact again after half precision
    data = np.ascontiguousarray(rows.cpu().numpy(), dtype="<f4")
    return Embedded(memoryview(data).cast("B"), tuple(len(one) for one in each))


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)
