"""A model worker: load one model, warm it up, embed what the parent sends, one planned batch at a time.

In: requests {"op": "embed", "texts": [...], "role": "query"|"document"}. Out: a stream of frames:
    {"plan": [[index, ...], ...]}           which texts share a batch, in order: the first open one is at work
    {"rows": [index, ...]} + float32 rows   one batch, as soon as it is done, in the order of its indices
    {"rows": [...], "failed": "poison" | "memory", "reason": str}   texts that cannot be embedded here
and a closing frame. Interactive requests pass between two batches; tokenising runs ahead on a thread of its own.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from msearchd import errors
from msearchd.aio import serve, wire
from msearchd.inference import weights
from msearchd.inference.worker import batches, engines
from msearchd.inference.worker.engines.base import Engine, EngineFacts, LoadOrder, Prepared

#: Requests tokenised ahead; the parent keeps two in flight. A cancelled one never asks for its result.
_AHEAD: Final = 4
#: Longest text that is tokenised, in characters per token of the limit: a token has rarely more than a dozen.
_CHARS_PER_TOKEN: Final = 64
_PROBE: Final = "the quick brown fox jumps over the lazy dog"


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Serve one model until the parent goes."""
    began = time.monotonic()
    folder = start["folder"] or _download(start["source"], revision=start["revision"])
    card = weights.describe(
        Path(folder),
        dtype=start["dtype"],
        query_prompt=start["query_prompt"],
        document_prompt=start["document_prompt"],
        max_tokens=start["max_tokens"],
        chunking=start["chunking"],
    )
    order = LoadOrder(
        folder=folder,
        device=start["device"],
        dtype=card.dtype,
        max_tokens=start["max_tokens"],
        query_prompt=card.query_prompt,
        document_prompt=card.document_prompt,
        threads=start["threads"],
    )
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):  # a forked worker inherits another model's
        os.environ[name] = str(start["threads"])
    engine = engines.make_engine(start["engine"], file=start.get("engine_file", ""))
    facts = engine.load(order)
    budget = batches.starting_budget(
        start["batch_tokens"], first_tokens=start.get("first_tokens", 0), is_cpu=facts.device == "cpu"
    )
    worker = Worker(engine, facts, budget)
    worker.warm_up()
    server = serve.Server(sock, {"embed": worker.embed, "facts": worker.facts}, on_arrival=worker.prepare_ahead)
    server.run(
        {
            "engine": start["engine"],
            "fingerprint": card.fingerprint,
            "load_s": time.monotonic() - began,
            **asdict(facts),
        }
    )


def _download(source: str, *, revision: str) -> str:
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


class Worker:
    """One loaded engine behind the wire. Requests run one at a time on the main thread."""

    def __init__(self, engine: Engine, loaded: EngineFacts, budget: batches.Budget) -> None:
        self._engine = engine
        self._loaded = loaded
        self._budget = budget
        self._tokenising = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._ahead: collections.OrderedDict[int, concurrent.futures.Future[tuple[Prepared, dict[int, str]]]] = (
            collections.OrderedDict()
        )
        self._batches = 0
        self._tokens = 0

    def warm_up(self) -> None:
        """One short and one full batch: kernels are built and memory is touched before anybody waits for it."""
        short = self._engine.prepare([_PROBE], role="query")
        self._engine.embed(short, [0], width=batches.padded_width(short.lengths[0], max_width=self._loaded.max_tokens))
        width = min(self._loaded.max_tokens, 128)
        long = self._engine.prepare(
            [f"{_PROBE} " * (width // 8)] * max(1, self._budget.tokens // width // 2), role="document"
        )
        for batch in batches.plan(long.lengths, budget_tokens=self._budget.tokens, max_width=self._loaded.max_tokens):
            self._attempt(long, batch)

    def prepare_ahead(self, request: serve.Request) -> None:
        """Begin to tokenise a bulk request while an earlier one computes. Called on the reader thread."""
        if request.op == "embed" and request.lane != wire.LANE_INTERACTIVE:
            self._ahead[request.id] = self._tokenising.submit(self._prepare, request)
            while len(self._ahead) > _AHEAD:
                self._ahead.popitem(last=False)

    def embed(self, request: serve.Request, turn: serve.Turn) -> Iterator[serve.Answer]:
        """Handle `embed` (see the module)."""
        ahead = self._ahead.pop(request.id, None)
        prepared, unreadable = ahead.result() if ahead is not None else self._prepare(request)
        is_bulk = request.lane != wire.LANE_INTERACTIVE
        budget = self._budget.for_bulk() if is_bulk else self._budget.tokens
        planned = batches.plan(prepared.lengths, budget_tokens=budget, max_width=self._loaded.max_tokens)
        yield serve.Answer({"plan": [list(batch.items) for batch in planned], "dim": self._loaded.dim})
        for index, reason in unreadable.items():
            yield serve.Answer({"rows": [index], "failed": "poison", "reason": reason})
        waiting = collections.deque(planned)
        while waiting:
            batch = waiting.popleft()
            outcome = self._attempt(prepared, batch)
            if isinstance(outcome, memoryview):
                yield (
                    _without(unreadable, batch.items, outcome)
                    if unreadable
                    else serve.Answer({"rows": list(batch.items)}, outcome)
                )
            elif parts := batches.halves(batch, prepared.lengths, max_width=self._loaded.max_tokens):
                waiting.extendleft(reversed(parts))
            else:
                yield self._failure(batch, outcome)
            turn.let_interactive_pass()

    def facts(self, _request: serve.Request, _turn: serve.Turn) -> Mapping[str, Any]:
        """Handle `facts`: what was learned and used so far. Bytes, padded tokens, tokens per second."""
        return {
            "batches": self._batches,
            "tokens": self._tokens,
            "budget_tokens": self._budget.tokens,
            "tokens_per_s": self._budget.tokens_per_s,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
        }

    def _prepare(self, request: serve.Request) -> tuple[Prepared, dict[int, str]]:
        """Tokenised texts, and the reason for each that cannot be (an empty text stands in its place)."""
        longest = max(20_000, self._loaded.max_tokens * _CHARS_PER_TOKEN)
        texts, role = [text[:longest] for text in request.args["texts"]], request.args["role"]
        try:
            return self._engine.prepare(texts, role=role), {}
        except Exception as error:  # noqa: BLE001 - found below, text by text
            if len(texts) == 1:
                return self._engine.prepare([""], role=role), {0: f"{type(error).__name__}: {error}"}
        unreadable: dict[int, str] = {}
        for index, text in enumerate(texts):
            try:
                self._engine.prepare([text], role=role)
            except Exception as error:  # noqa: BLE001 - the outcome of this text alone
                unreadable[index], texts[index] = f"{type(error).__name__}: {error}", ""
        return self._engine.prepare(texts, role=role), unreadable

    def _attempt(self, prepared: Prepared, batch: batches.Batch) -> memoryview | Exception:
        """One forward pass: its rows, or the error, with the budget told of it."""
        began = time.monotonic()
        try:
            rows = self._engine.embed(prepared, batch.items, width=batch.width)
        except Exception as error:  # noqa: BLE001 - becomes the outcome of these texts alone
            if batches.is_shortage(error):
                self._budget = self._budget.after_shortage(batch.tokens)
            caught = error
        else:
            self._batches += 1
            self._tokens += batch.tokens
            self._budget = self._budget.after_batch(batch.tokens, seconds=time.monotonic() - began)
            return rows
        _give_memory_back()  # outside of except: the traceback held the tensors
        return caught.with_traceback(None)

    def _failure(self, batch: batches.Batch, error: BaseException) -> serve.Answer:
        """Say which text failed and why. Ends the process where the device is broken: a new one may work."""
        reason = f"{type(error).__name__}: {error}"
        if batches.is_shortage(error):
            return serve.Answer({"rows": list(batch.items), "failed": "memory", "reason": reason})
        probe = self._engine.prepare([_PROBE], role="query")
        sound = self._attempt(
            probe, batches.Batch((0,), batches.padded_width(probe.lengths[0], max_width=self._loaded.max_tokens))
        )
        if isinstance(sound, memoryview):
            return serve.Answer({"rows": list(batch.items), "failed": "poison", "reason": reason})
        message = f"the engine fails on every text now: {reason}"
        raise SystemExit(message)


def _without(unreadable: Mapping[int, str], items: Sequence[int], rows: memoryview) -> serve.Answer:
    """The rows of *items* but for those that only stand in for an unreadable text."""
    size = len(rows) // len(items)
    kept = [place for place, index in enumerate(items) if index not in unreadable]
    body = b"".join(rows[place * size : (place + 1) * size] for place in kept)
    return serve.Answer({"rows": [items[place] for place in kept]}, body)


def _give_memory_back() -> None:
    """Return what a failed batch left behind to the device."""
    import gc

    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
