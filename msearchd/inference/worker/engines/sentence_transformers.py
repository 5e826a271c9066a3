"""sentence-transformers 6 in this process: its modules, our tokenising and batching.

`encode()` sorts, pads and converts once more than we need, so the model's own modules are called with batches that are
tokenised already; the vectors are encode()'s (a contract test compares). Models that tokenise in a way of their own
(chat templates, routers, slow tokenizers) go through the model's preprocess, one planned batch a call.
Never fetches anything; never runs a repository's own code.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from msearchd.domain.sample import Sample
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors, pick_device

_INSTALL = "type: pip install 'msearchd[models]'"


class SentenceTransformersEngine:
    """A text bi-encoder."""

    def __init__(self) -> None:
        self._model: Any = None
        self._prompts: dict[str, str] = {}
        self._tokens: _FastTokens | _AnyTokens | None = None

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("sentence_transformers", extra=_INSTALL, folder=order.folder):
            import sentence_transformers
            import torch
            import transformers

            torch.set_num_threads(order.threads)
            device = pick_device(order.device)
            model = sentence_transformers.SentenceTransformer(
                order.folder,
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, order.dtype)},
            )
            model.eval()
            limit = _limit_tokens(model, order.max_tokens)
            self._model = model
            self._prompts = {"query": order.query_prompt, "document": order.document_prompt}
            self._tokens = (
                _FastTokens(model, limit, self._prompts)
                if _FastTokens.serves(model)
                else _AnyTokens(model, self._prompts)
            )
            dim = self.embed(self.prepare(["dimension"], role="document"), [0], width=16).data.nbytes // 4
        versions = {
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
        return EngineFacts(dim=dim, max_tokens=limit, device=device, dtype=order.dtype, versions=versions)

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare."""
        return self._ready_tokens().prepare([sample for sample in samples if isinstance(sample, str)], role=role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import numpy as np
        import torch

        with torch.inference_mode():
            features, task = self._ready_tokens().features(prepared, items, width=width)
            device = self._model.device
            features = {name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()}
            out = self._model(features, **task)["sentence_embedding"]
            out = torch.nn.functional.normalize(out.float(), p=2, dim=1)
            rows = np.ascontiguousarray(out.cpu().numpy(), dtype="<f4")
        return Embedded(memoryview(rows).cast("B"))

    def close(self) -> None:
        """As Engine.close."""
        self._model = None

    def _ready_tokens(self) -> _FastTokens | _AnyTokens:
        if self._tokens is None:
            message = "embed before load"
            raise RuntimeError(message)
        return self._tokens


def _limit_tokens(model: Any, asked: int) -> int:
    """Cut at the least of what the settings, the model and its position table allow; 512 where nobody says."""
    own = model.max_seq_length
    first = model[0]
    positions = getattr(getattr(first, "config", None), "max_position_embeddings", None)
    stated = [value for value in (own, asked or None) if isinstance(value, int) and 0 < value < 1_000_000]
    limit = min(stated) if stated else min(positions or 512, 512)
    if limit != own:
        model.max_seq_length = limit
    return limit


class _FastTokens:
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
            type(first).__name__ == "Transformer"
            and "message" not in getattr(first, "modality_config", {})
            and getattr(first, "query_expansion", None) is None
            and getattr(model.tokenizer, "is_fast", False)
        )

    def prepare(self, texts: Sequence[str], *, role: str) -> Prepared:
        prompt = self._prompts[role]
        whole = [prompt + text for text in texts] if prompt else list(texts)
        encodings = self._tokenizer.encode_batch_fast(whole)
        items = [(encoding.ids, encoding.type_ids if self._has_types else None) for encoding in encodings]
        return Prepared(items, [len(ids) for ids, _ in items], role)

    def features(
        self, prepared: Prepared, items: Sequence[int], *, width: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
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


class _AnyTokens:
    """Let the model tokenise each planned batch; lengths are only estimated here."""

    def __init__(self, model: Any, prompts: dict[str, str]) -> None:
        self._model = model
        self._prompts = prompts
        self._alone = threading.Lock()  # such tokenizers promise nothing about threads

    def prepare(self, texts: Sequence[str], *, role: str) -> Prepared:
        limit = self._model.max_seq_length or 512
        lengths = [min(limit, 8 + len((self._prompts[role] + text).encode()) // 3) for text in texts]
        return Prepared(list(texts), lengths, role)

    def features(
        self, prepared: Prepared, items: Sequence[int], *, width: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        del width  # the model pads to its longest
        task = {"task": prepared.role}
        # The dict form: a bare string that is a media path or a URL would be opened by multimodal models.
        texts = [{"text": prepared.items[index]} for index in items]
        with self._alone:
            features = self._model.preprocess(texts, prompt=self._prompts[prepared.role] or None, **task)
        return dict(features), task
