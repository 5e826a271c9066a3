"""Texts to weighted words: SPLADE and its kin, as sentence-transformers' SparseEncoder has them.

    Transformer (fill-mask) + SpladePooling     words of the text and their kin, by a forward pass
    Router: SparseStaticEmbedding | the above   questions are looked up, passages computed (inference-free)
    Transformer + Pooling + SparseAutoEncoder   dimensions without a name (CSR)

The library makes all logits of a batch, tokens x vocabulary: 250 MB for 2,048 tokens of BERT, and copies them for the
pooling. Here the last layer is applied to some texts at a time and the maximum is taken before relu and logarithm, which
keep it: the same vectors (compared at load, else the library's own way stays) in a tenth of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msearchd.domain.sample import Sample
from msearchd.inference.sparse_form import LEAST_SHARE, MOST_ENTRIES
from msearchd.inference.worker.engines.base import Embedded, Prepared
from msearchd.inference.worker.engines.st_text import AnyTokens, FastTokens, on_device

#: Tokens whose logits are made at once: 62 MB of BERT's on a CPU, where more is no faster (the last layer is as wide as
#: the vocabulary, so a few texts fill the matrix product); an accelerator wants larger ones.
_TOKENS_CPU: Final = 512
_TOKENS_DEVICE: Final = 8192
_PROBE: Final = ["A passage to compare by.", "Another one, which is longer than the first, so that there is padding."]


class SparseWay:
    """Text to a sparse vector: at most MOST_ENTRIES dimensions with weights, not normalised."""

    def __init__(self, model: Any, limit: int, prompts: dict[str, str]) -> None:
        self._model = model
        for pair in _splade_pairs(model):
            _lighten(model, pair)
        is_plain = FastTokens.serves(model)
        self._tokens = FastTokens(model, limit, prompts) if is_plain else AnyTokens(model, prompts, as_input=_itself)
        self._most = min(MOST_ENTRIES, getattr(model, "max_active_dims", None) or MOST_ENTRIES)
        self.dim = int(_weights(model, _PROBE[:1], "document").shape[1])

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        return self._tokens.prepare([sample for sample in samples if isinstance(sample, str)], role=role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed, but for the length: entries (uint32 dimension, float32 weight), `rows` of each item."""
        import torch

        with torch.inference_mode():
            features, task = self._tokens.features(prepared, items, width=width)
            weights = self._model(on_device(features, self._model.device), **task)["sentence_embedding"]
            return entries_of(weights, most=self._most)


def entries_of(weights: Any, *, most: int) -> Embedded:
    """The *most* heaviest dimensions of each row of float[n, dim], ascending; without those that weigh next to nothing.

    Raises ValueError where a weight is no number.
    """
    import numpy as np
    import torch

    weights = weights.to_dense() if weights.is_sparse else weights
    sizes = weights.float().abs()
    heaviest = sizes.amax(1, keepdim=True)
    if not bool(torch.isfinite(heaviest).all()):
        message = "the model gives weights that are no numbers"
        raise ValueError(message)
    kept = sizes > heaviest * LEAST_SHARE
    for row in (kept.sum(1) > most).nonzero()[:, 0].tolist():
        chosen = torch.zeros_like(kept[row])
        chosen[sizes[row].topk(most).indices] = True  # ties at the limit fall as topk has them
        kept[row] &= chosen
    rows, dimensions = kept.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(weights)).tolist()
    table: Any = np.empty(len(dimensions), dtype=[("dimension", "<u4"), ("weight", "<f4")])
    table["dimension"] = dimensions.cpu().numpy()
    table["weight"] = weights[kept].float().cpu().numpy()
    return Embedded(memoryview(table.view(np.uint8)), tuple(int(count) for count in counts))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A transformer that names words, and the pooling behind it."""

    transformer: Any
    pooling: Any


def _splade_pairs(model: Any) -> Iterator[_Pair]:
    """Every SPLADE in *model*, those behind a router too."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Sequential):
            parts = list(module)
            for one, after in itertools.pairwise(parts):
                if type(after).__name__ == "SpladePooling" and hasattr(one, "auto_model"):
                    yield _Pair(one, after)


def _lighten(model: Any, pair: _Pair) -> None:
    """Apply the last layer within the pooling, some texts at a time; where that gives other vectors, leave all as it was."""
    import torch

    masked = pair.transformer.auto_model
    last = masked.get_output_embeddings()
    place = next(((name, module) for name, module in masked.named_modules() if module is last), None)
    if place is None or not isinstance(last, torch.nn.Linear) or pair.pooling.pooling_strategy != "max":
        return
    parent, _, name = place[0].rpartition(".")
    holder = masked.get_submodule(parent)
    wanted = _weights(model, _PROBE, "document")
    setattr(holder, name, torch.nn.Identity())
    pair.pooling.forward = _pooled(last, is_twice=pair.pooling.activation_function == "log1p_relu")
    try:
        found = _weights(model, _PROBE, "document")
        slack = max(1e-4, 8 * torch.finfo(last.weight.dtype).eps)  # products of other shapes round otherwise
        is_same = found.shape == wanted.shape and torch.allclose(found, wanted, rtol=slack, atol=slack)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError):
        is_same = False
    if not is_same:
        setattr(holder, name, last)
        del pair.pooling.forward


def _pooled(last: Any, *, is_twice: bool) -> Any:
    """SpladePooling.forward on what comes before the *last* layer: max of logits, then relu and log1p (or both twice)."""
    import torch

    tokens_at_once = _TOKENS_CPU if last.weight.device.type == "cpu" else _TOKENS_DEVICE

    def forward(features: dict[str, Any]) -> dict[str, Any]:
        hidden, mask = features["token_embeddings"], features["attention_mask"].bool()
        width = hidden.shape[1]
        lengths: list[int] = mask.sum(1).tolist()
        pads_left = not bool(mask[:, 0].all())
        most: Any = torch.zeros(len(hidden), last.weight.shape[0], dtype=hidden.dtype, device=hidden.device)
        step = max(1, tokens_at_once // max(1, width))
        for start in range(0, len(hidden), step):
            logits = last(hidden[start : start + step])
            for row, own in enumerate(logits, start):
                tokens = own[width - lengths[row] :] if pads_left else own[: lengths[row]]
                if len(tokens):
                    torch.amax(tokens, dim=0, out=most[row])
        weights = most.relu_().log1p_()
        features["sentence_embedding"] = weights.log1p_() if is_twice else weights
        return features

    return forward


def _weights(model: Any, texts: Sequence[str], role: str) -> Any:
    """float[n, dim] of *texts* by the library's own way."""
    import torch

    with torch.inference_mode():
        features = model.preprocess(list(texts), task=role)
        return model(on_device(dict(features), model.device), task=role)["sentence_embedding"]


def _itself(text: str) -> str:
    """A sparse encoder reads text alone: nothing in it is taken for a path or an address."""
    return text
