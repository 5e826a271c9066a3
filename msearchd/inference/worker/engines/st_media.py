"""Pictures and sounds for models of sentence-transformers, and models that give each item many vectors.

Where the model's processor makes one shape of everything (CLIP, SigLIP, CLAP), a sample is made ready alone, ahead of its
batch; else the whole batch goes through the processor at once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from msearchd.domain.sample import Picture, Sample, Sound
from msearchd.inference.worker.engines import decoded
from msearchd.inference.worker.engines.base import Embedded, Prepared
from msearchd.inference.worker.engines.st_text import on_device, rows_of, unit_rows

#: CLAP's; a longer window it cuts at a random place.
LONGEST_S: Final = 10.0
_PROBES: Final[dict[str, tuple[Sample, Sample]]] = {
    "image": (Picture(64, 64, bytes(64 * 64 * 3)), Picture(96, 48, bytes(96 * 48 * 3))),
}


class Senses:
    """Samples in the dict form of sentence-transformers: the one form that it never takes for a path or an address."""

    def __init__(self, processor: Any) -> None:
        hearing = getattr(processor, "feature_extractor", None)
        self.rate = int(getattr(hearing, "sampling_rate", 0) or 48_000)
        self.longest_s = float(getattr(hearing, "max_length_s", 0) or getattr(hearing, "chunk_length", 0) or LONGEST_S)

    def as_input(self, sample: Sample) -> tuple[Any, int]:
        """What the library takes for *sample*, and its cost. Raises BadAsset for a sound that the model cannot hear."""
        if isinstance(sample, Picture):
            image = decoded.as_image(sample)
            return {"image": image}, decoded.patches(*image.size)
        if isinstance(sample, Sound):
            samples = decoded.as_samples(sample, rate=self.rate, longest_s=self.longest_s)
            return {"array": samples, "sampling_rate": self.rate}, decoded.frames(len(samples), self.rate)
        return {"text": str(sample)}, 8 + len(str(sample).encode()) // 3

    def probes(self, kind: str) -> tuple[Sample, Sample]:
        """Two samples of different sizes."""
        if kind == "audio":
            return Sound(self.rate, bytes(4 * self.rate)), Sound(self.rate, bytes(8 * self.rate))
        return _PROBES[kind]


class MediaWay:
    """Pictures, or sounds, to one vector each."""

    def __init__(self, model: Any, kind: str) -> None:
        self._model = model
        self._kind = kind
        self._senses = Senses(model[0].processor)
        self._alone = threading.Lock()  # processors promise nothing about threads
        # The library pads sounds with silence; CLAP was trained with its own way (the sound, again and again).
        padding = getattr(getattr(model[0].processor, "feature_extractor", None), "padding", None)
        self._options = {"audio": {"padding": padding}} if kind == "audio" and isinstance(padding, str) else None
        self._cost = 0  # of every sample, where the processor makes one shape of all
        shapes = [self._ready([sample])[0] for sample in self._senses.probes(kind)]
        if _are_alike(*shapes):
            self._cost = _fixed_cost(shapes[0], kind, self._senses)

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        if self._cost:
            return Prepared(self._ready(samples), [self._cost] * len(samples), role, self._kind)
        inputs = [self._senses.as_input(sample) for sample in samples]
        return Prepared([one for one, _ in inputs], [cost for _, cost in inputs], role, self._kind)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import torch

        del width  # the processor has said how large
        chosen = [prepared.items[index] for index in items]
        if self._cost:
            features = {name: _joined([one[name] for one in chosen]) for name in chosen[0]}
        else:
            with self._alone:
                features = dict(self._model.preprocess(chosen, processing_kwargs=self._options))
        with torch.inference_mode():
            features = _in_format(on_device(features, self._model.device), self._model.dtype)
            return unit_rows(self._model(features)["sentence_embedding"])

    def _ready(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """The tensors of each sample, of one row each; all in one call of the processor where it makes one shape of all."""
        with self._alone:
            inputs = [self._senses.as_input(sample)[0] for sample in samples]
            features = dict(self._model.preprocess(inputs, processing_kwargs=self._options)) if inputs else {}
        if len(samples) == 1:
            return [features]
        return [
            {name: value[row : row + 1] if hasattr(value, "shape") else value for name, value in features.items()}
            for row in range(len(samples))
        ]


class ManyWay:
    """Texts, pictures or sounds to many vectors each (late interaction): rows without those of padding."""

    def __init__(self, model: Any, kind: str, limit: int, prompts: dict[str, str]) -> None:
        self._model = model
        self._kind = kind
        self._limit = limit
        self._prompts = prompts
        self._senses = Senses(model[0].processor)
        self._alone = threading.Lock()

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Costs are guesses: the processor sees the batch as a whole."""
        inputs = [self._senses.as_input(sample) for sample in samples]
        most = self._limit if self._kind == "text" and self._limit else 1 << 30
        return Prepared([one for one, _ in inputs], [min(most, cost) for _, cost in inputs], role, self._kind)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import torch

        del width
        task = prepared.role
        prompt = (self._prompts.get(task) or None) if self._kind == "text" else None
        with torch.inference_mode():
            with self._alone:
                features = dict(self._model.preprocess([prepared.items[i] for i in items], prompt=prompt, task=task))
            out = self._model(on_device(features, self._model.device), task=task)
            each = [
                torch.nn.functional.normalize(rows[mask].float(), p=2, dim=-1)
                for rows, mask in zip(out["token_embeddings"], out["attention_mask"].bool(), strict=True)
            ]
            return rows_of(torch.cat(each), tuple(len(rows) for rows in each))


def _are_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """True where both have the same tensors of the same shape, each of one sample."""
    return one.keys() == other.keys() and all(
        not hasattr(one[name], "shape") or (one[name].shape == other[name].shape and one[name].shape[:1] == (1,))
        for name in one
    )


def _fixed_cost(features: dict[str, Any], kind: str, senses: Senses) -> int:
    if kind == "audio":
        return decoded.frames(int(senses.longest_s * senses.rate), senses.rate)
    height, width = features["pixel_values"].shape[-2:]
    return decoded.patches(width, height)


def _joined(values: list[Any]) -> Any:
    import torch

    return torch.cat(values) if hasattr(values[0], "shape") else values[0]


def _in_format(features: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """*features* with pixels and spectra in the model's number format."""
    return {
        name: value.to(dtype) if hasattr(value, "is_floating_point") and value.is_floating_point() else value
        for name, value in features.items()
    }
