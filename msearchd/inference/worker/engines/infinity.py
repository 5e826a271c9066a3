"""infinity-emb 0.0.78, Python-native: AsyncEmbeddingEngine, hardened, fed one planned batch a call.

Its own batching is first-in first-out by item count, and any exception in one of its threads kills that thread for
good and leaves every caller waiting for ever (measured). So exceptions travel as values through its pipeline, and
batches are planned by us (1.55 x its own batching). Runs in its own environment (numpy<2, transformers 4), and shimmed
beside transformers 5.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors, pick_device

_INSTALL: Final = "type: msearchd engines install infinity (in a source checkout: make infinity)"
#: Larger than any planned batch of texts that are not tiny: infinity must not cut our batches again.
_BATCH_SIZE: Final = 512


class InfinityEngine:
    """A text bi-encoder. Its threads end with `close`."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._loop = asyncio.new_event_loop()
        self._lengths: Callable[[list[str]], list[int]] = lambda texts: [len(text) for text in texts]
        self._prompts: dict[str, str] = {}
        self._limit = 512

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("infinity", extra=_INSTALL, folder=order.folder):
            if importlib.util.find_spec("infinity_emb") is None:  # before torch costs seconds
                message = "there is no package infinity_emb"
                raise ImportError(message)
            import torch
            import transformers

            shim_transformers_5(transformers)
            from infinity_emb import AsyncEmbeddingEngine, EngineArgs

            torch.set_num_threads(order.threads)
            device = pick_device(order.device)
            kind, _, number = device.partition(":")
            self._engine = AsyncEmbeddingEngine.from_args(
                EngineArgs(
                    model_name_or_path=order.folder,
                    engine="torch",
                    device=kind,
                    device_id=[int(number)] if number else [],
                    batch_size=_BATCH_SIZE,
                    dtype=order.dtype,
                    pooling_method="auto",
                    embedding_dtype="float32",
                    bettertransformer=False,
                    compile=False,
                    model_warmup=False,
                    lengths_via_tokenize=False,
                    trust_remote_code=False,
                    revision=None,
                )
            )
            replicas = self._engine._model_replicas  # noqa: SLF001 - there is no other way to reach the model
            self._limit = self._prepare_replicas(replicas, order)
            harden(replicas)
            self._prompts = {"query": order.query_prompt, "document": order.document_prompt}
            self._loop.run_until_complete(self._engine.astart())
            dim = self.embed(self.prepare(["dimension"], role="document"), [0], width=16).data.nbytes // 4
        versions = {
            "infinity-emb": version("infinity-emb"),
            "transformers": transformers.__version__,
            "sentence-transformers": version("sentence-transformers"),
            "torch": torch.__version__,
        }
        return EngineFacts(dim=dim, max_tokens=self._limit, device=device, dtype=order.dtype, versions=versions)

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Infinity tokenises again inside its call; the lengths here are for the plan."""
        whole = [self._prompts[role] + text for text in samples if isinstance(text, str)]
        return Prepared(whole, self._lengths(whole), role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import numpy as np

        del width  # its tokenizer pads to the multiple that _prepare_replicas set
        rows: list[Any] = []
        for start in range(0, len(items), _BATCH_SIZE):
            part = [prepared.items[index] for index in items[start : start + _BATCH_SIZE]]
            vectors, _usage = self._loop.run_until_complete(self._engine.embed(part))
            rows.extend(vectors)
        for row in rows:
            if isinstance(row, Exception):
                raise row
        return Embedded(memoryview(np.ascontiguousarray(np.stack(rows), dtype="<f4")).cast("B"))

    def close(self) -> None:
        """As Engine.close."""
        if self._engine is not None:
            self._loop.run_until_complete(self._engine.astop())
        self._loop.close()

    def _prepare_replicas(self, replicas: Sequence[Any], order: LoadOrder) -> int:
        """Set the token limit, bucketed padding and the length counter; return the limit."""
        from tokenizers import Tokenizer

        limit = 512
        for model in replicas:
            if not hasattr(model, "encode_core") or not hasattr(model, "max_seq_length"):
                message = f"infinity does not take {order.folder} for a text embedder"
                raise errors.Misconfigured(message, key="engine:infinity", hint='set engine = "sentence_transformers"')
            if any(getattr(part, "include_prompt", True) is False for part in model) and (
                order.query_prompt or order.document_prompt
            ):
                message = f"{order.folder} leaves its prompt out of pooling, which infinity cannot"
                raise errors.Misconfigured(message, key="engine:infinity", hint='set engine = "sentence_transformers"')
            own = model.max_seq_length
            stated = [
                value for value in (own, order.max_tokens or None) if isinstance(value, int) and 0 < value < 1_000_000
            ]
            limit = min(stated) if stated else 512
            model.max_seq_length = limit
            pad_to_multiple(model.tokenizer, limit)
        tokenizer = replicas[0].tokenizer
        if getattr(tokenizer, "is_fast", False):
            counter = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            counter.no_padding()
            counter.enable_truncation(max_length=limit)
            self._lengths = lambda texts: [len(encoding.ids) for encoding in counter.encode_batch_fast(texts)]
        else:
            self._lengths = lambda texts: [min(limit, 8 + len(text.encode()) // 3) for text in texts]
        return limit


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
        return [error] * count

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
