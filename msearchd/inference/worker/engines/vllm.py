"""vLLM in its own interpreter: text to vectors and pairs to scores on NVIDIA GPUs.

vLLM plans its own steps (tokens per step, sequences), so one planned batch of ours is one call. It reserves its share of the
GPU's memory at the start: half here, for other models may live beside it. Never fetches anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Pair, Sample
from msearchd.inference import roster
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors

_KEY: Final = "engine:vllm"
_MEMORY_SHARE: Final = 0.5
_CONVERT: Final = {"text": "embed", "rerank": "classify"}


class VllmEngine:
    """A text bi-encoder or a cross-encoder (one label) on vllm.LLM."""

    def __init__(self) -> None:
        self._model: Any = None
        self._tokenizer: Any = None
        self._limit = 0
        self._serves = "text"
        self._raw: Callable[[], Any] = dict
        self._prompts: dict[str, str] = {}

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        if order.serves not in _CONVERT:
            message = f"engine vllm serves {' and '.join(_CONVERT)} here, not {order.serves}"
            raise errors.Misconfigured(message, key=_KEY, hint='set engine = "auto"')
        with load_errors("vllm", extra=roster.ENGINES["vllm"].install_line, folder=order.folder):
            import torch
            import vllm

            if not torch.cuda.is_available():
                message = "vLLM needs an NVIDIA GPU, and its torch sees none"
                hint = 'set engine = "auto", or run it elsewhere: engine = "openai", urls = ["http://host:8000"]'
                raise errors.Misconfigured(message, key=_KEY, hint=hint)
            self._model = vllm.LLM(
                model=order.folder,
                runner="pooling",
                convert=_CONVERT[order.serves],
                dtype=order.dtype,
                max_model_len=order.max_tokens or None,
                gpu_memory_utilization=_MEMORY_SHARE,
                trust_remote_code=False,
                disable_log_stats=True,
            )
            self._tokenizer = self._model.get_tokenizer()
            self._limit = int(self._model.llm_engine.model_config.max_model_len)
            self._serves = order.serves
            # Made for each call, for vLLM writes into it; raw scores: the pool applies the sigmoid.
            self._raw = functools.partial(vllm.PoolingParams, use_activation=False)
            self._prompts = {"query": order.query_prompt, "document": order.document_prompt}
            probe: Sample = Pair("a question", "a text") if order.serves == "rerank" else "dimension"
            dim = self.embed(self.prepare([probe], role="document"), [0], width=16).data.nbytes // 4
        return EngineFacts(
            dim=dim,
            max_tokens=self._limit,
            device=order.device if order.device.startswith("cuda") else "cuda",
            dtype=order.dtype,
            versions={"vllm": vllm.__version__, "torch": torch.__version__},
            kinds=("pair",) if order.serves == "rerank" else ("text",),
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Texts become token ids, cut at the limit; pairs stay text, vLLM joins them."""
        if self._serves == "rerank":
            pairs = [(sample.query, sample.text) for sample in samples if isinstance(sample, Pair)]
            lengths = [min(self._limit, 8 + sum(len(part.encode()) for part in pair) // 3) for pair in pairs]
            return Prepared(pairs, lengths, role, "pair")
        texts = [self._prompts[role] + sample for sample in samples if isinstance(sample, str)]
        ids = self._tokenizer(texts, truncation=True, max_length=self._limit)["input_ids"]
        return Prepared(ids, [len(one) for one in ids], role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import numpy as np

        del width  # vLLM packs without padding
        chosen = [prepared.items[index] for index in items]
        if prepared.kind == "pair":
            queries, texts = [query for query, _ in chosen], [text for _, text in chosen]
            outputs = self._model.score(
                queries,
                texts,
                use_tqdm=False,
                pooling_params=self._raw(),
                tokenization_kwargs={
                    "truncate_prompt_tokens": -1
                },  # at the model's limit; it would refuse a longer pair
            )
            rows = np.array([[one.outputs.score] for one in outputs], dtype=np.float32)
        else:
            prompts = [{"prompt_token_ids": ids} for ids in chosen]
            outputs = self._model.embed(prompts, use_tqdm=False)
            rows = np.array([one.outputs.embedding for one in outputs], dtype=np.float32)
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return Embedded(memoryview(np.ascontiguousarray(rows, dtype="<f4")).cast("B"))

    def close(self) -> None:
        """As Engine.close."""
        self._model = None
