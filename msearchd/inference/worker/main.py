"""A model worker: load one model, warm it up, and serve it, one planned batch at a time.

In: requests {"op": "embed", "kind": ..., "role": "query"|"document", ...} with one of
    "text"   {"texts": [...]}                       "pair"   {"query": str, "texts": [...]}
    "image"  {"shapes": [[width, height], ...]} + RGB bytes
    "audio"  {"rate": int, "lengths": [samples, ...]} + float32 PCM
Out: a stream of frames:
    {"plan": [[index, ...], ...]}           which samples share a batch, in order: the first open one is at work
    {"rows": [index, ...]} + float32 rows   one batch, as soon as it is done, in the order of its indices;
                                            multi-vectors have "counts": [rows of each item]; a sparse
                                            vector's rows are entries, (uint32 dimension, float32 weight)
    {"rows": [...], "failed": "poison" | "memory", "reason": str}   samples that cannot be embedded here
    {"learned": {kind: {...}}, "peak_bytes", "device_bytes"}   what its successor may begin with
and a closing frame. {"op": "transcribe", "rate", "language"} + PCM answers with frames {"t0", "t1", "text"} (ms).
Interactive requests pass between two batches; preparing runs ahead on a thread of its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from msearchd import errors
from msearchd.aio import serve
from msearchd.domain.sample import Sound
from msearchd.inference import weights
from msearchd.inference.worker import engines
from msearchd.inference.worker.budget import FIRST_COST, Budget, starting_budget
from msearchd.inference.worker.embedding import Worker, memory_used
from msearchd.inference.worker.engines.base import Engine, LoadOrder, Transcriber


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Serve one model until the parent goes."""
    began = time.monotonic()
    folder = start["folder"] or _download(start["source"], revision=start["revision"], engine=start["engine"])
    card = weights.describe(
        Path(folder),
        dtype=start["dtype"],
        query_prompt=start["query_prompt"],
        document_prompt=start["document_prompt"],
        max_tokens=start["max_tokens"],
        chunking=start["chunking"],
        serves=start.get("serves", "text"),
    )
    order = LoadOrder(
        folder=folder,
        device=start["device"],
        dtype=card.dtype,
        max_tokens=start["max_tokens"],
        query_prompt=card.query_prompt,
        document_prompt=card.document_prompt,
        threads=start["threads"],
        serves=start.get("serves", "text"),
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):  # a forked worker inherits another model's
        os.environ[name] = str(start["threads"])
    if (mask := start.get("visible_devices")) is not None:  # before anything asks the driver
        os.environ["CUDA_DEVICE_ORDER"], os.environ["CUDA_VISIBLE_DEVICES"] = "PCI_BUS_ID", mask
    engine = engines.make_engine(start["engine"], file=start.get("engine_file", ""))
    facts = engine.load(order)
    handlers: dict[str, serve.Handler] = {}
    learned: Mapping[str, Any] = {}
    on_arrival = None
    if hasattr(engine, "embed"):
        worker = Worker(cast("Engine", engine), facts, _budgets(start, facts.device))
        worker.warm_up()
        handlers["embed"] = worker.embed
        on_arrival = worker.prepare_ahead
        learned = worker.learned()
    if hasattr(engine, "transcribe"):
        handlers["transcribe"] = _Transcribing(cast("Transcriber", engine)).transcribe
    handlers["facts"] = lambda _request, _turn: memory_used()
    serve.Server(sock, handlers, on_arrival=on_arrival).run(
        {
            "engine": start["engine"],
            "fingerprint": card.fingerprint,
            "load_s": time.monotonic() - began,
            "learned": learned,
            **memory_used(),
            **asdict(facts),
        }
    )


def _budgets(start: Mapping[str, Any], device: str) -> dict[str, Budget]:
    learned = start.get("learned") or {}
    return {
        kind: starting_budget(
            kind,
            limit=start["batch_tokens"] if kind in {"text", "pair"} else 0,
            first_cost=start.get("first_tokens", 0) if kind in {"text", "pair"} else 0,
            learned=learned.get(kind),
            is_cpu=device == "cpu",
        )
        for kind in FIRST_COST
    }


class _Transcribing:
    def __init__(self, engine: Transcriber) -> None:
        self._engine = engine

    def transcribe(self, request: serve.Request, turn: serve.Turn) -> Iterator[serve.Answer]:
        sound = Sound(request.args["rate"], bytes(request.body))
        for piece in self._engine.transcribe(sound, language=request.args.get("language", "")):
            yield serve.Answer({"t0": piece.t0_ms, "t1": piece.t1_ms, "text": piece.text})
            turn.let_interactive_pass()


def _download(source: str, *, revision: str, engine: str) -> str:
    """Fetch a model from the hub (the parent allowed it) and return its folder."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        message = "huggingface_hub is not installed"
        raise errors.Misconfigured(
            message, key=f"source:{source}", hint="type: pip install 'msearchd[models]'"
        ) from error
    ignore = ["onnx/*", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.onnx", "*.gguf", "coreml/*", "original/*"]
    try:
        if engine == "onnx":  # its form of the weights, and not the others
            wanted = ["onnx/model.onnx", "onnx/model.onnx_data", "*.json", "*.txt"]
            return str(snapshot_download(source, revision=revision or None, allow_patterns=wanted))
        return str(snapshot_download(source, revision=revision or None, ignore_patterns=ignore))
    except Exception as error:
        kind = type(error).__name__
        if kind in {"RepositoryNotFoundError", "RevisionNotFoundError", "GatedRepoError", "HFValidationError"}:
            message = f"the hub has no model {source!r} for us ({kind})"
            raise errors.Misconfigured(
                message, key=f"source:{source}", hint="correct source in [[inference.models]]"
            ) from error
        message = f"{source} could not be fetched: {error}"
        raise errors.RetryLater(message, after_s=60.0, hint="check the network") from error
