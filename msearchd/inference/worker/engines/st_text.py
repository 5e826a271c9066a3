"""Texts and pairs for models of sentence-transformers: tokenised by us where that is plain, by the model where not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from msearchd.domain.sample import Pair, Sample
from msearchd.inference.worker.engines.base import Embedded, Prepared


class TextWay:
    """Text to vectors: a bi-encoder."""

    def __init__(self, model: Any, limit: int, prompts: dict[str, str]) -> None:
        self._model = model
        self._tokens = FastTokens(model, limit, prompts) if FastTokens.serves(model) else AnyTokens(model, prompts)

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        return self._tokens.prepare([sample for sample in samples if isinstance(sample, str)], role=role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import torch

        with torch.inference_mode():
            features, task = self._tokens.features(prepared, items, width=width)
            return unit_rows(self._model(on_device(features, self._model.device), **task)["sentence_embedding"])


class PairWay:
    """Pairs to scores: a cross-encoder with one label. Scores are raw (logits)."""

    def __init__(self, model: Any, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._tokens = FastTokens(model, limit, {}) if FastTokens.serves(model) else None
        self._alone = threading.Lock()

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        pairs = [(sample.query, sample.text) for sample in samples if isinstance(sample, Pair)]
        if self._tokens is not None:
            return self._tokens.prepare(pairs, role=role, kind="pair")
        lengths = [min(self._limit, 8 + sum(len(part.encode()) for part in pair) // 3) for pair in pairs]
        return Prepared(pairs, lengths, role, "pair")

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import torch

        with torch.inference_mode():
            if self._tokens is not None:
                features, _ = self._tokens.features(prepared, items, width=width)
            else:  # rerankers that are asked in a chat
                # The dict form: a bare string that is a media path or a URL would be opened by multimodal models.
                pairs = [({"text": query}, {"text": text}) for query, text in (prepared.items[i] for i in items)]
                with self._alone:
                    features = dict(self._model.preprocess(pairs))
            scores = self._model(on_device(features, self._model.device))["scores"]
            return rows_of(scores.reshape(len(items), 1))


def on_device(features: dict[str, Any], device: Any) -> dict[str, Any]:
    """*features* with its tensors on *device*."""
    return {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}


def unit_rows(vectors: Any) -> Embedded:
    """float[n, dim] as L2-normalised float32 rows."""
    import torch

    return rows_of(torch.nn.functional.normalize(vectors.float(), p=2, dim=1))


def rows_of(tensor: Any, counts: tuple[int, ...] | None = None) -> Embedded:
    """float[n, dim] as little-endian float32 rows."""
    import numpy as np

    return Embedded(memoryview(np.ascontiguousarray(tensor.float().cpu().numpy(), dtype="<f4")).cast("B"), counts)


class FastTokens:
    """Tokenise with the Rust tokenizer itself: no padding, no offsets, safe to call from two threads."""

    def __init__(self, model: Any, limit: int, prompts: dict[str, str]) -> None:
        from tokenizers import Tokenizer

        tokenizer = model.tokenizer
        # A copy: the library changes truncation and padding of its own on every call; no other thread must meet that.
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=limit, direction=tokenizer.truncation_side)
        self._pad_id = tokenizer.pad_token_id or 0
        self._pads_left = tokenizer.padding_side == "left"
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._prompts = prompts
        self._special_ids = frozenset(tokenizer.all_special_ids)
        self._prompt_lengths = {role: self._prompt_length(text) for role, text in prompts.items() if text}

    @staticmethod
    def serves(model: Any) -> bool:
        """True for a plain text transformer with a Rust tokenizer."""
        first = model[0]
        return (
            type(first).__name__ in {"Transformer", "MLMTransformer"}
            and "message" not in getattr(first, "modality_config", {})
            and getattr(first, "query_expansion", None) is None
            and getattr(model.tokenizer, "is_fast", False)
        )

    def prepare(self, texts: Sequence[str | tuple[str, str]], *, role: str, kind: str = "text") -> Prepared:
        """Ids and types of *texts*, or of pairs of texts, cut at the limit."""
        prompt = self._prompts.get(role, "")
        whole = [prompt + str(text) for text in texts] if prompt else list(texts)
        encodings = self._tokenizer.encode_batch_fast(whole)
        items = [(encoding.ids, encoding.type_ids if self._has_types else None) for encoding in encodings]
        return Prepared(items, [len(ids) for ids, _ in items], role, kind)

    def features(
        self, prepared: Prepared, items: Sequence[int], *, width: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors of one batch, padded to *width*, and what else the model is told."""
        import numpy as np
        import torch

        ids: Any = np.full((len(items), width), self._pad_id, dtype=np.int64)
        mask: Any = np.zeros((len(items), width), dtype=np.int64)
        types: Any = np.zeros((len(items), width), dtype=np.int64) if self._has_types else None
        for row, index in enumerate(items):
            tokens, kinds = prepared.items[index]
            place = slice(width - len(tokens), width) if self._pads_left else slice(0, len(tokens))
            ids[row, place] = tokens
            mask[row, place] = 1
            if types is not None:
                types[row, place] = kinds
        features: dict[str, Any] = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "modality": "text",
        }
        if types is not None:
            features["token_type_ids"] = torch.from_numpy(types)
        if prepared.role in self._prompt_lengths:  # for pooling that leaves the prompt out
            features["prompt_length"] = self._prompt_lengths[prepared.role]
        return features, {}

    def _prompt_length(self, prompt: str) -> int:
        ids = self._tokenizer.encode(prompt).ids
        return len(ids) - (1 if ids and ids[-1] in self._special_ids else 0)  # as Transformer._get_prompt_length


class AnyTokens:
    """Let the model tokenise each planned batch; lengths are only estimated here.

    *as_input* makes of a text what the model takes. By default the dict form: a bare string that is a media path or a URL
    would be opened by multimodal models.
    """

    def __init__(self, model: Any, prompts: dict[str, str], *, as_input: Callable[[str], Any] | None = None) -> None:
        self._model = model
        self._prompts = prompts
        self._as_input = as_input or (lambda text: {"text": text})
        self._alone = threading.Lock()  # such tokenizers promise nothing about threads

    def prepare(self, texts: Sequence[str], *, role: str) -> Prepared:
        """The texts themselves, and guesses of their lengths."""
        limit = self._model.max_seq_length or 512
        lengths = [min(limit, 8 + len((self._prompts[role] + text).encode()) // 3) for text in texts]
        return Prepared(list(texts), lengths, role)

    def features(
        self, prepared: Prepared, items: Sequence[int], *, width: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors of one batch, and what else the model is told."""
        del width  # the model pads to its longest
        task = {"task": prepared.role}
        texts = [self._as_input(prepared.items[index]) for index in items]
        with self._alone:
            features = self._model.preprocess(texts, prompt=self._prompts[prepared.role] or None, **task)
        return dict(features), task
