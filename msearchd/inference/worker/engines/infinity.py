"""infinity-emb 0.0.78, Python-native: AsyncEmbeddingEngine, hardened, fed one planned batch a call.

Its own batching is first-in first-out by item count, and any exception in one of its threads kills that thread for
good and leaves every caller waiting for ever (measured). So exceptions travel as values through its pipeline, and
batches are planned by us (1.55 x its own batching). Runs in its own environment (numpy<2, transformers 4), and shimmed
beside transformers 5.

    text      embed         BERT's kin          image     image_embed   CLIP, SigLIP; ColPali (infinity_pages.py)
    pair      rerank        one label           audio     audio_embed   CLAP
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.domain.sample import Pair, Picture, Sample, Sound
from msearchd.inference.worker.engines import decoded, infinity_pages, infinity_shims, late
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, LoadOrder, Prepared, load_errors, pick_device
from msearchd.inference.worker.engines.infinity_shims import Failed, harden, pad_to_multiple

_INSTALL: Final = "type: msearchd engines install infinity (in a source checkout: make infinity)"
_OTHER: Final = 'set engine = "sentence_transformers"'
#: Larger than any planned batch of texts that are not tiny: infinity must not cut our batches again.
_BATCH_SIZE: Final = 512
_LONGEST_S: Final = 10.0
_KINDS: Final = {"embed": "text", "image_embed": "image", "audio_embed": "audio", "rerank": "pair"}
_NEEDS: Final = {"text": "text", "image": "image", "audio": "audio", "page": "image", "rerank": "pair"}


class InfinityEngine:
    """Every kind of model that infinity-emb loads but classifiers. Its threads end with `close`."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._loop = asyncio.new_event_loop()
        self._lengths: Callable[[list[Any]], list[int]] = lambda texts: [len(text) for text in texts]
        self._prompts: dict[str, str] = {}
        self._limit = 512
        self._picture_cost = 0  # patches of every picture, where the processor makes one shape of all
        self._rate = 48_000
        self._is_multi = False
        self._pages: infinity_pages.PageProcessor | None = None
        self._see: Callable[[Any], infinity_shims.ReadyPicture] = infinity_shims.refuse

    def load(self, order: LoadOrder) -> EngineFacts:
        """As Engine.load."""
        with load_errors("infinity", extra=_INSTALL, folder=order.folder):
            if importlib.util.find_spec("infinity_emb") is None:  # before torch costs seconds
                message = "there is no package infinity_emb"
                raise ImportError(message)
            is_colpali = infinity_pages.require(Path(order.folder))
            import torch
            import transformers

            infinity_shims.shim_transformers_5(transformers)
            from infinity_emb import AsyncEmbeddingEngine, EngineArgs

            infinity_shims.open_nothing()
            if is_colpali:
                infinity_pages.name_what_is_gone()
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
            kinds = self._kinds(order)
            replicas = self._engine._model_replicas  # noqa: SLF001 - there is no other way to reach the model
            self._prompts = {"query": order.query_prompt, "document": order.document_prompt}
            self._prepare_replicas(replicas, order, kinds=kinds, device=device)
            harden(replicas)
            self._loop.run_until_complete(self._engine.astart())
            dim = 1 if kinds == ("pair",) else self._dim()
        versions = {
            "infinity-emb": version("infinity-emb"),
            "transformers": transformers.__version__,
            "sentence-transformers": version("sentence-transformers"),
            "torch": torch.__version__,
        }
        if self._is_multi:
            versions["colpali-engine"] = version("colpali-engine")
        return EngineFacts(
            dim=dim,
            max_tokens=self._limit,
            device=device,
            dtype=order.dtype,
            versions=versions,
            kinds=kinds,
            multi=self._is_multi,
        )

    def prepare(self, samples: Sequence[Sample], *, role: str) -> Prepared:
        """As Engine.prepare. Infinity tokenises texts inside its call; their costs here are for the plan."""
        first = samples[0] if samples else ""
        if self._pages is not None:
            return self._ready_pages(self._pages, samples, role)
        if isinstance(first, Picture):
            images = [self._see(decoded.as_image(sample)) for sample in samples if isinstance(sample, Picture)]
            return Prepared(images, [self._picture_cost] * len(images), role, "image")
        if isinstance(first, Sound):
            sounds = [
                decoded.as_samples(sample, rate=self._rate, longest_s=_LONGEST_S)
                for sample in samples
                if isinstance(sample, Sound)
            ]
            return Prepared(
                sounds, [decoded.frames(int(_LONGEST_S * self._rate), self._rate)] * len(sounds), role, "audio"
            )
        if isinstance(first, Pair):
            pairs = [(sample.query, sample.text) for sample in samples if isinstance(sample, Pair)]
            return Prepared(pairs, self._lengths(pairs), role, "pair")
        whole = [self._prompts[role] + str(sample) for sample in samples]
        return Prepared(whole, self._lengths(whole), role)

    def embed(self, prepared: Prepared, items: Sequence[int], *, width: int) -> Embedded:
        """As Engine.embed."""
        import numpy as np

        del width  # its tokenizer pads to the multiple that _prepare_replicas set
        rows: list[Any] = []
        for start in range(0, len(items), _BATCH_SIZE):
            part = [prepared.items[index] for index in items[start : start + _BATCH_SIZE]]
            rows.extend(self._loop.run_until_complete(self._call(prepared.kind, part)))
        for row in rows:
            if isinstance(row, Failed):
                raise row.error
        if self._is_multi:
            rows = [without_padding(row) for row in rows]
            counts = tuple(len(row) for row in rows)
            return Embedded(memoryview(np.ascontiguousarray(np.concatenate(rows), dtype="<f4")).cast("B"), counts)
        return Embedded(memoryview(np.ascontiguousarray(np.stack(rows), dtype="<f4")).cast("B"))

    def close(self) -> None:
        """As Engine.close."""
        if self._engine is not None:
            self._loop.run_until_complete(self._engine.astop())
        self._loop.close()

    def _ready_pages(self, pages: infinity_pages.PageProcessor, samples: Sequence[Sample], role: str) -> Prepared:
        if isinstance(samples[0], Picture):
            made: list[Any] = [pages.ready_picture(decoded.as_image(it)) for it in samples if isinstance(it, Picture)]
        elif isinstance(samples[0], str):
            made = [pages.ready_text(str(it), role=role) for it in samples]
        else:
            message = f"this model reads text and image, not {type(samples[0]).__name__.lower()}"
            raise errors.BadAsset(message)
        kind = "image" if isinstance(samples[0], Picture) else "text"
        return Prepared([item for item, _ in made], [cost for _, cost in made], role, kind)

    async def _call(self, kind: str, part: Sequence[Any]) -> list[Any]:
        if kind == "image":
            return list((await self._engine.image_embed(images=part))[0])
        if kind == "audio":
            return list((await self._engine.audio_embed(audios=part))[0])
        if kind == "pair":
            return await self._scores(part)
        return list((await self._engine.embed(list(part)))[0])

    async def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """One call a query; its answer is sorted by score, ours is in the order of *pairs*."""
        scores: list[Any] = [None] * len(pairs)
        for query in dict.fromkeys(query for query, _ in pairs):
            places = [place for place, (other, _) in enumerate(pairs) if other == query]
            texts = [pairs[place][1] for place in places]
            found, _usage = await self._engine.rerank(query=query, docs=texts, raw_scores=True)
            for one in found:
                score = one.relevance_score
                scores[places[one.index]] = score if isinstance(score, Failed) else [score]
        return scores

    def _kinds(self, order: LoadOrder) -> tuple[str, ...]:
        """What the model reads; raises Misconfigured where that does not serve what is asked."""
        able = self._engine.capabilities
        kinds = tuple(kind for ability, kind in _KINDS.items() if ability in able)
        if _NEEDS.get(order.serves) not in kinds:
            message = (
                f"infinity takes {order.folder} for a model of {', '.join(kinds) or 'classes'}, not {order.serves}"
            )
            raise errors.Misconfigured(message, key="engine:infinity", hint=f"correct serves, or {_OTHER}")
        return kinds

    def _dim(self) -> int:
        out = self.embed(self.prepare(["dimension"], role="query"), [0], width=16)
        return out.data.nbytes // 4 // (out.rows[0] if out.rows else 1)

    def _prepare_replicas(
        self, replicas: Sequence[Any], order: LoadOrder, *, kinds: tuple[str, ...], device: str
    ) -> None:
        for model in replicas:
            if "image" in kinds or "audio" in kinds:
                self._prepare_towers(model, order, device=device)
            elif "pair" in kinds:
                self._limit = least_limit(model.tokenizer.model_max_length, model.config, asked=order.max_tokens)
                model.tokenizer.model_max_length = self._limit
            else:
                self._prepare_text(model, order)
            tokenizer = model.tokenizer if hasattr(model, "tokenizer") else model.processor.tokenizer
            pad_to_multiple(tokenizer, self._limit)
            self._lengths = counter_of(tokenizer, self._limit)

    def _prepare_text(self, model: Any, order: LoadOrder) -> None:
        """Set the token limit of a text embedder. Raises Misconfigured for what infinity would embed wrongly."""
        if not hasattr(model, "encode_core") or not hasattr(model, "max_seq_length"):
            message = f"infinity does not take {order.folder} for a text embedder"
            raise errors.Misconfigured(message, key="engine:infinity", hint=_OTHER)
        if any(getattr(part, "include_prompt", True) is False for part in model) and (
            order.query_prompt or order.document_prompt
        ):
            message = f"{order.folder} leaves its prompt out of pooling, which infinity cannot"
            raise errors.Misconfigured(message, key="engine:infinity", hint=_OTHER)
        self._limit = least_limit(model.max_seq_length, None, asked=order.max_tokens)
        model.max_seq_length = self._limit

    def _prepare_towers(self, model: Any, order: LoadOrder, *, device: str) -> None:
        """Make a model of two towers right: its device and number format, its texts' limit, its processor."""
        import torch

        config = model.model.config
        is_audio = hasattr(model.processor, "feature_extractor") and not hasattr(model.processor, "image_processor")
        self._is_multi = bool(getattr(model, "is_colipali", False))
        if is_audio and order.dtype != "float32":
            message = f"infinity computes sounds in float32 alone, not in {order.dtype}"
            raise errors.Misconfigured(message, key="engine:infinity", hint=f'set dtype = "float32", or {_OTHER}')
        if is_audio and getattr(config.audio_config, "enable_fusion", False):
            message = f"{order.folder} is a fused CLAP, which infinity cannot feed"
            raise errors.Misconfigured(message, key="engine:infinity", hint=_OTHER)
        # It leaves CLAP on the CPU, and CLIP in float32 there, whatever was asked.
        model.model.to(device=device, dtype=getattr(torch, order.dtype)).eval()
        tokenizer = model.processor.tokenizer
        self._limit = least_limit(
            tokenizer.model_max_length, getattr(config, "text_config", None), asked=order.max_tokens
        )
        model.max_length = self._limit
        if self._is_multi:
            self._limit = order.max_tokens or late.QUESTION_TOKENS
            self._pages = infinity_pages.PageProcessor(model.processor, prompts=self._prompts, limit=self._limit)
            model.processor = self._pages
            return
        infinity_shims.take_pooled(model)
        model.processor = infinity_shims.PlainProcessor(
            model.processor, limit=self._limit, pads_whole=str(config.model_type).startswith("siglip")
        )
        if is_audio:
            self._rate = int(model.sampling_rate)
        else:
            probe = Picture(64, 64, bytes(64 * 64 * 3))
            self._see = model.processor.ready_picture
            height, width = self._see(decoded.as_image(probe)).features["pixel_values"].shape[-2:]
            self._picture_cost = decoded.patches(width, height)


def without_padding(rows: Any) -> Any:
    """float[n, dim] without the zero rows that infinity keeps for padding."""
    return rows[(rows != 0).any(axis=1)]


def least_limit(own: Any, config: Any, *, asked: int) -> int:
    """Tokens of the longest text: the least of what the tokenizer, the position table and the settings allow."""
    positions = getattr(config, "max_position_embeddings", None)
    stated = [it for it in (own, asked or None) if isinstance(it, int) and 0 < it < 1_000_000]
    return min(stated) if stated else min(positions or 512, 512)


def counter_of(tokenizer: Any, limit: int) -> Callable[[list[Any]], list[int]]:
    """How many tokens texts, or pairs of texts, have; guessed where the tokenizer is a slow one."""
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        return lambda texts: [min(limit, 8 + len("".join(text).encode()) // 3) for text in texts]
    counter = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    counter.no_padding()
    counter.enable_truncation(max_length=limit)
    return lambda texts: [len(encoding.ids) for encoding in counter.encode_batch_fast(texts)]
