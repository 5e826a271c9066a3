"""A loaded engine behind the wire: `embed` requests in, planned batches and their rows out (frames: see worker/main.py).

Requests run one at a time on the main thread; bulk ones are made ready on a thread of their own while an earlier one
computes, whatever their kind.
"""

from __future__ import annotations

import collections
import concurrent.futures
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msearchd import errors
from msearchd.aio import serve, wire
from msearchd.domain.sample import Pair, Picture, Sample, Sound
from msearchd.inference import parcel
from msearchd.inference.worker import batches
from msearchd.inference.worker.budget import Budget
from msearchd.inference.worker.engines.base import Embedded, Engine, EngineFacts, Prepared

#: Requests made ready ahead; the parent keeps two in flight. A cancelled one never asks for its result.
_AHEAD: Final = 4
#: Longest text that is tokenised, in characters per token of the limit: a token has rarely more than a dozen.
_CHARS_PER_TOKEN: Final = 64
_PROBE: Final = "the quick brown fox jumps over the lazy dog"
_NO_WIDTH: Final = 1 << 30

#: What stands where a sample cannot be made ready, and what proves that the device still works.
PROBES: Final[Mapping[str, Sample]] = {
    "text": _PROBE,
    "pair": Pair(_PROBE, _PROBE),
    "image": Picture(64, 64, b"\x7f" * (64 * 64 * 3)),
    "audio": Sound(48_000, b"\x00\x00\x00\x00" * 48_000),
}


class Worker:
    """One loaded engine and what was learned about its batches."""

    def __init__(self, engine: Engine, loaded: EngineFacts, budgets: Mapping[str, Budget]) -> None:
        self._engine = engine
        self._loaded = loaded
        self._budgets = dict(budgets)
        self._preparing = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._ahead: collections.OrderedDict[int, concurrent.futures.Future[tuple[Prepared, dict[int, str]]]] = (
            collections.OrderedDict()
        )

    def warm_up(self) -> None:
        """One short batch a kind, and a full one of text: kernels are built, memory is touched before anybody waits."""
        for kind in self._loaded.kinds:
            if kind in PROBES:
                probe = self._engine.prepare([PROBES[kind]], role="query")
                self._engine.embed(probe, [0], width=self._plan(kind, probe.lengths, 1)[0].width)
        if "text" in self._loaded.kinds and self._loaded.max_tokens:
            budget = self._budgets["text"]
            width = min(self._loaded.max_tokens, 128)
            text = f"{_PROBE} " * (width // 8)
            long = self._engine.prepare([text] * max(1, budget.cost // width // 2), role="document")
            for batch in self._plan("text", long.lengths, budget.cost):
                self._attempt("text", long, batch)
            self._budgets["text"] = self._budgets["text"].after_warm_up()

    def prepare_ahead(self, request: serve.Request) -> None:
        """Begin to make a bulk request ready while an earlier one computes. Called on the reader thread."""
        if request.op == "embed" and request.lane != wire.LANE_INTERACTIVE:
            self._ahead[request.id] = self._preparing.submit(self._prepare, request)
            while len(self._ahead) > _AHEAD:
                self._ahead.popitem(last=False)

    def embed(self, request: serve.Request, turn: serve.Turn) -> Iterator[serve.Answer]:
        """Handle `embed` (see worker/main.py)."""
        kind = request.args.get("kind", "text")
        ahead = self._ahead.pop(request.id, None)
        prepared, unreadable = ahead.result() if ahead is not None else self._prepare(request)
        budget = self._budgets[kind]
        is_bulk = request.lane != wire.LANE_INTERACTIVE
        planned = self._plan(kind, prepared.lengths, budget.sizes() if is_bulk else _for_few(kind, budget))
        yield serve.Answer(
            {"plan": [list(batch.items) for batch in planned], "dim": self._loaded.dim, "sparse": self._loaded.sparse}
        )
        for index, reason in unreadable.items():
            yield serve.Answer({"rows": [index], "failed": "poison", "reason": reason})
        waiting = collections.deque(planned)
        while waiting:
            batch = waiting.popleft()
            outcome = self._attempt(kind, prepared, batch)
            if isinstance(outcome, Embedded):
                yield _answer(batch.items, outcome, costs=prepared.lengths, without=unreadable)
            elif parts := batches.halves(
                batch, prepared.lengths, max_width=self._max_width(kind), step=batches.step_of(kind)
            ):
                waiting.extendleft(reversed(parts))
            else:
                yield self._failure(kind, batch, outcome)
            turn.let_interactive_pass()
        yield serve.Answer({"learned": {kind: self._budgets[kind].as_learned()}, **memory_used()})

    def learned(self) -> dict[str, dict[str, float]]:
        """Budgets as a successor may begin with them, by kind."""
        return {kind: budget.as_learned() for kind, budget in self._budgets.items()}

    def _plan(self, kind: str, lengths: Sequence[int], cost: int | Sequence[int]) -> list[batches.Batch]:
        return batches.plan(lengths, budget_cost=cost, max_width=self._max_width(kind), step=batches.step_of(kind))

    def _max_width(self, kind: str) -> int:
        return self._loaded.max_tokens if kind in {"text", "pair"} and self._loaded.max_tokens else _NO_WIDTH

    def _prepare(self, request: serve.Request) -> tuple[Prepared, dict[int, str]]:
        """Samples made ready, and the reason for each that cannot be (a probe stands in its place)."""
        role = request.args["role"]
        longest = max(20_000, self._loaded.max_tokens * _CHARS_PER_TOKEN)
        samples = [_cut(sample, longest) for sample in parcel.unpack(request.args, request.body)]
        stand_in = PROBES[request.args.get("kind", "text")]
        try:
            return self._engine.prepare(samples, role=role), {}
        except Exception as error:  # noqa: BLE001 - found below, sample by sample
            if len(samples) == 1:
                return self._engine.prepare([stand_in], role=role), {0: f"{type(error).__name__}: {error}"}
        unreadable: dict[int, str] = {}
        for index, sample in enumerate(samples):
            try:
                self._engine.prepare([sample], role=role)
            except Exception as error:  # noqa: BLE001 - the outcome of this sample alone
                unreadable[index], samples[index] = f"{type(error).__name__}: {error}", stand_in
        return self._engine.prepare(samples, role=role), unreadable

    def _attempt(self, kind: str, prepared: Prepared, batch: batches.Batch) -> Embedded | Exception:
        """One forward pass: its rows, or the error, with the budget told of it."""
        began, cpu_began = time.monotonic(), time.process_time()
        try:
            rows = self._engine.embed(prepared, batch.items, width=batch.width)
        except (errors.RetryLater, errors.Misconfigured):
            raise  # a server that runs the model is away: no sample is to blame, a smaller batch changes nothing
        except Exception as error:  # noqa: BLE001 - becomes the outcome of these samples alone
            if batches.is_shortage(error):
                self._budgets[kind] = self._budgets[kind].after_shortage(batch.cost)
            caught = error
        else:
            # On a CPU the work is what it cost, not how long others kept it waiting.
            effort_s = time.process_time() - cpu_began if self._loaded.device == "cpu" else 0.0
            self._budgets[kind] = self._budgets[kind].after_batch(
                batch.cost, seconds=time.monotonic() - began, effort_s=effort_s, target=batch.target
            )
            return rows
        _give_memory_back()  # outside of except: the traceback held the tensors
        return caught.with_traceback(None)

    def _failure(self, kind: str, batch: batches.Batch, error: BaseException) -> serve.Answer:
        """Say which sample failed and why. Ends the process where the device is broken: a new one may work."""
        reason = f"{type(error).__name__}: {error}"
        if batches.is_shortage(error):
            return serve.Answer({"rows": list(batch.items), "failed": "memory", "reason": reason})
        probe = self._engine.prepare([PROBES[kind]], role="query")
        if isinstance(self._attempt(kind, probe, self._plan(kind, probe.lengths, 1)[0]), Embedded):
            return serve.Answer({"rows": list(batch.items), "failed": "poison", "reason": reason})
        message = f"the engine fails on every sample now: {reason}"
        raise SystemExit(message)


def _for_few(kind: str, budget: Budget) -> int:
    """The size of an interactive request's batches: what has lengths of its own is cut finer."""
    return budget.for_questions() if kind in {"text", "pair"} else budget.cost


def _cut(sample: Sample, longest: int) -> Sample:
    if isinstance(sample, str):
        return sample[:longest]
    return Pair(sample.query[:longest], sample.text[:longest]) if isinstance(sample, Pair) else sample


def _answer(
    items: Sequence[int], outcome: Embedded, *, costs: Sequence[int], without: Mapping[int, str]
) -> serve.Answer:
    """The rows of *items* but for those that only stand in for an unreadable sample."""
    counts = outcome.rows
    if not without:
        args: dict[str, Any] = {"rows": list(items), "costs": [int(costs[index]) for index in items]}
        return serve.Answer(args | ({} if counts is None else {"counts": list(counts)}), outcome.data)
    each = counts if counts is not None else (1,) * len(items)
    size = len(outcome.data) // max(1, sum(each))
    kept, body, start = [], [], 0
    for place, count in enumerate(each):
        if items[place] not in without:
            kept.append(place)
            body.append(outcome.data[start * size : (start + count) * size])
        start += count
    args = {"rows": [items[place] for place in kept], "costs": [int(costs[items[place]]) for place in kept]}
    return serve.Answer(args | ({} if counts is None else {"counts": [each[place] for place in kept]}), b"".join(body))


def _give_memory_back() -> None:
    """Return what a failed batch left behind to the device."""
    import gc

    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def memory_used() -> dict[str, int]:
    """Peak resident bytes of this process, and bytes that it holds on its accelerator."""
    torch: Any = sys.modules.get("torch")
    device_bytes = 0
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        device_bytes = int(torch.cuda.max_memory_reserved())
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale,
        "device_bytes": device_bytes,
    }
