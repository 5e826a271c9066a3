"""The pool of models: what loading costs, whether memory comes back, taking turns, learned batch sizes, questions.

    python -m bench.pool_bench [--only turns,...] [--jobs 1000] [--chars 200] [--sample 40] [--cycles 20] [--passages 200]

cycles      MiniLM is loaded and unloaded; seconds (first: by a cold fork server), bytes while loaded, and what this
            process and its children keep, against what they kept after the first unload. Bar: within 2 %.
turns       two models that may not be loaded together (two folders of MiniLM), mixed jobs in one real queue, through the
            real dispatcher; CPU of this process and all its children, loading included, against the sum of both alone.
            Bar: 1.15. Beside it plain LRU: the same jobs in the order of their arrival. Each change of model is a load
            there, which a few jobs show as well as a thousand: it is measured on --sample of them and scaled by the job.
sizes       the learned batch size, as it is cut (at most 0.2 s of a CPU), against a sweep of fixed ones: the same engine
            and passages in one process, CPU, interleaved, the least of the rounds. Bar: 0.95 of the best.
questions   a question's embedding on an idle worker, and while passages are embedded. Bar: p95 within one bulk batch
            (0.25 s) and its own time.
wire        CPU of both sides for a request of 32 texts to an engine that does nothing, against MiniLM's 32 texts. Bar: 2 %.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from bench.common import Report, arguments, tree_cpu_s
from bench.inference_bench import SOURCE, cpu_of, passages
from bench.queue_bench import with_queue
from msearchd.aio.child import Limits, resident_bytes
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, Owed, Step
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.inference.spec import worker_env
from msearchd.inference.weights import find_weights
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.dispatcher import Dispatcher
from msearchd.orchestrator.dispatcher import Lane as JobLane
from msearchd.orchestrator.model_turns import ModelTurns
from msearchd.settings.model import EmbeddingModel, InferenceSettings

ONE, TWO = ModelKey("one"), ModelKey("two")
SIZES = (256, 512, 1024, 2048, 4096, 8192)
#: Runs by itself: learns a size from the same passages as a worker does, then meets it with fixed ones, in turns.
_SWEEP = """
import json, random, sys, time
from msearchd.inference.worker import batches, engines
from msearchd.inference.worker.budget import starting_budget
from msearchd.inference.worker.engines.base import LoadOrder
folder, file, rounds = sys.argv[1:]
texts = json.load(open(file))
engine = engines.make_engine("sentence_transformers")
facts = engine.load(LoadOrder(folder=folder, device="cpu"))
prepared = engine.prepare(texts, role="document")
def run(sizes, heard=None):
    began = time.process_time()
    for batch in batches.plan(prepared.lengths, budget_cost=sizes, max_width=facts.max_tokens):
        wall, cpu = time.monotonic(), time.process_time()
        engine.embed(prepared, batch.items, width=batch.width)
        if heard:
            heard(batch, time.monotonic() - wall, time.process_time() - cpu)
    return time.process_time() - began
budget = starting_budget("text", is_cpu=True)
def learn(batch, wall, cpu):
    global budget
    budget = budget.after_batch(batch.cost, seconds=wall, effort_s=cpu, target=batch.target)
run((2048,))
for _ in range(6):
    if budget.trial:
        run(budget.sizes(), learn)
took = {size: [] for size in (budget.for_bulk(), 256, 512, 1024, 2048, 4096, 8192)}
for number in range(int(rounds)):
    for size in (list(took) if number % 2 else list(took)[::-1]):
        took[size].append(run((size,)))
print(json.dumps({"learned": budget.cost, "as_cut": budget.for_bulk(), "cpu_s": {s: min(t) for s, t in took.items()}}))
"""
_IDLE_ENGINE = """
from msearchd.inference.worker.engines.base import Embedded, EngineFacts, Prepared
class Engine:
    def load(self, order):
        return EngineFacts(dim=384, max_tokens=256, device="cpu", dtype="float32", versions={})
    def prepare(self, samples, *, role):
        return Prepared(list(samples), [64] * len(samples), role)
    def embed(self, prepared, items, *, width):
        return Embedded(memoryview(bytes(len(items) * 384 * 4)))
    def close(self):
        pass
"""


def model(name: str, **changes: Any) -> EmbeddingModel:
    folder = str(find_weights(SOURCE).folder)
    return EmbeddingModel(
        **{"name": name, "source": folder, "engine": "sentence_transformers", "threads": 1, "device": "cpu"} | changes
    )


@contextlib.asynccontextmanager
async def pool_of(*models: EmbeddingModel, engine_file: Path | None = None, **settings: Any) -> AsyncIterator[Pool]:
    with tempfile.TemporaryDirectory() as state:
        pool = Pool(
            InferenceSettings(models=models, text_model=models[0].name, idle_unload_s=0.0, **settings),
            limits=Limits(),
            chunking="",
            state_dir=Path(state),
            engine_files={"sentence_transformers": engine_file} if engine_file else None,
        )
        try:
            yield pool
        finally:
            await pool.close()


async def embed(pool: Pool, texts: Sequence[str], *, model: ModelKey = ONE, lane: Lane = Lane.BULK) -> None:
    await pool.embed(texts, model=model, role=Role.DOCUMENT, lane=lane, deadline_s=600)


def children_of(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children_of(int(child))]
    return found


async def cycles(report: Report, options: Any) -> None:
    loads, unloads, kept, held = [], [], [], 0
    async with pool_of(model(ONE)) as pool:
        for _ in range(options.cycles):
            began = time.monotonic()
            await pool.preload(ONE)
            loads.append(time.monotonic() - began)
            await embed(pool, ["a passage to warm it"] * 8)
            held = pool.snapshot().models[0].resident_bytes
            began = time.monotonic()
            await pool.unload(ONE)
            unloads.append(time.monotonic() - began)
            kept.append(sum(resident_bytes(pid) for pid in (os.getpid(), *children_of(os.getpid()))))
    report.row(
        f"load and unload, {options.cycles} cycles (s)",
        first_load=loads[0],
        load=statistics.median(loads[1:]),
        unload=statistics.median(unloads),
    )
    report.row("bytes", loaded=held, kept_after_first=kept[0], kept_after_last=kept[-1])
    report.bar(f"memory kept after {options.cycles} cycles against after one", value=kept[-1] / kept[0], at_most=1.02)


async def work_through(
    models: dict[ModelKey, int], *, chars: int, is_by_turns: bool = True
) -> tuple[float, float, int]:
    """CPU and wall seconds, and loads, of jobs that embed one short passage each: so many of each model, mixed by a seed."""
    order = [name for name, count in models.items() for _ in range(count)]
    random.Random(2).shuffle(order)
    texts = [text[:chars] for text in passages(400)]
    with tempfile.TemporaryDirectory() as folder:
        async with pool_of(model(ONE), model(TWO, query_prompt="two: "), max_loaded=1) as pool:

            async def drain(queue: JobQueue) -> None:
                for number, name in enumerate(order):
                    await queue.enqueue([Owed(AssetId(number), Step.EMBED, target=name)])

                async def run(jobs: Sequence[Job]) -> None:
                    await asyncio.gather(
                        *(embed(pool, [texts[job.asset % 400]], model=ModelKey(job.target)) for job in jobs)
                    )
                    for job in jobs:
                        await queue.complete(job)

                async def one_by_one(jobs: Sequence[Job]) -> None:
                    for job in jobs:
                        await run([job])

                lanes = (
                    [
                        JobLane(name=name, steps=((Step.EMBED, name),), run=run, concurrency=2, group=64, claim_ahead=0)
                        for name in (ONE, TWO)
                    ]
                    if is_by_turns
                    else [JobLane(name="all", steps=((Step.EMBED, None),), run=one_by_one, concurrency=1)]
                )
                dispatcher = Dispatcher(queue, lanes, turns=ModelTurns(pool))
                serving = asyncio.create_task(dispatcher.run(), name="dispatcher")
                waiting = asyncio.create_task(queue.idle_for(None, deadline_s=3600), name="waiting")
                await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
                failed = serving.exception() if serving.done() else None
                serving.cancel()
                waiting.cancel()
                await asyncio.gather(serving, waiting, return_exceptions=True)
                await dispatcher.drain(deadline_s=1)
                if failed is not None:
                    raise failed

            cpu, began = tree_cpu_s(os.getpid()), time.monotonic()
            # The imports of the fork server are paid once by each pool: they are no part of taking turns.
            await pool.preload(ONE)
            await pool.unload(ONE)
            cpu, began = tree_cpu_s(os.getpid()), time.monotonic()
            before = sum(one.loads for one in pool.snapshot().models)
            await with_queue(Path(folder) / "queue.db", drain)
            loads = sum(one.loads for one in pool.snapshot().models) - before
            return tree_cpu_s(os.getpid()) - cpu, time.monotonic() - began, loads


async def turns(report: Report, options: Any) -> None:
    half, sample = options.jobs // 2, min(options.sample, options.jobs) // 2
    chars = options.chars
    alone = [await work_through({name: half}, chars=chars) for name in (ONE, TWO)]
    mixed = await work_through({ONE: half, TWO: half}, chars=chars)
    lru = await work_through({ONE: sample, TWO: sample}, chars=chars, is_by_turns=False)
    alone_cpu, alone_s = sum(cpu for cpu, _, _ in alone), sum(wall for _, wall, _ in alone)
    report.row(f"{options.jobs} mixed jobs of two models (s)", cpu=mixed[0], wall=mixed[1], loads=mixed[2])
    report.row("the sum of each alone (s)", cpu=alone_cpu, wall=alone_s)
    report.row(f"plain LRU, {2 * sample} jobs (s)", cpu=lru[0], wall=lru[1], loads=lru[2])
    lru_ratio = (lru[0] / (2 * sample)) / (alone_cpu / options.jobs)
    report.row("CPU of a job against alone", by_turns=mixed[0] / alone_cpu, plain_lru=lru_ratio)
    report.bar("mixed jobs against the sum of each alone, CPU", value=mixed[0] / alone_cpu, at_most=1.15)


async def sizes(report: Report, options: Any) -> None:
    folder = str(find_weights(SOURCE).folder)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "texts.json"
        file.write_text(json.dumps(passages(options.passages)))
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "ignore", "-c", _SWEEP, folder, str(file), str(options.rounds)],
            env={**os.environ, **worker_env(threads=1, allow_download=False, state_dir=Path(place))},
            stdout=subprocess.PIPE,
            check=True,
        )
    told = json.loads(done.stdout.splitlines()[-1])
    took = {int(size): seconds for size, seconds in told["cpu_s"].items()}
    fixed = min(SIZES, key=lambda size: took[size])
    report.row("CPU of a round (s)", **{f"tokens_{size}": seconds for size, seconds in took.items()})
    report.row("padded tokens", learned=told["learned"], as_cut=told["as_cut"], best_fixed=fixed)
    report.bar(
        "learned batch size, as cut, against the best fixed one",
        value=took[fixed] / took[told["as_cut"]],
        at_least=0.95,
    )


async def questions(report: Report, options: Any) -> None:
    texts = passages(options.passages)

    async def asked(count: int) -> list[float]:
        took = []
        for number in range(count):
            began = time.monotonic()
            await embed(pool, [f"question number {number}"], lane=Lane.INTERACTIVE)
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
        return sorted(took)

    async with pool_of(model(ONE)) as pool:
        await pool.preload(ONE)
        await embed(pool, texts[:40])
        idle = await asked(40)

        async def index() -> None:
            while True:
                await embed(pool, texts)

        indexing = asyncio.create_task(index(), name="indexing")
        await asyncio.sleep(0.5)
        busy = await asked(40)
        indexing.cancel()
        await asyncio.gather(indexing, return_exceptions=True)
    report.row("a question on an idle worker (ms)", p50=1000 * idle[20], p95=1000 * idle[37])
    report.row("a question while passages are embedded (ms)", p50=1000 * busy[20], p95=1000 * busy[37])
    report.bar("the latter, p95, beyond the former (s)", value=busy[37] - idle[37], at_most=0.25)


async def wire(report: Report, _options: Any) -> None:
    texts = passages(320)

    async def cpu_a_request(pool: Pool, count: int) -> float:
        await embed(pool, texts[:32])
        pid = pool.snapshot().models[0].pid
        began, ours = cpu_of(pid), time.process_time()
        for number in range(count):
            await embed(pool, texts[32 * (number % 10) : 32 * (number % 10) + 32])
        return (cpu_of(pid) - began + time.process_time() - ours) / count

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "idle_engine.py"
        file.write_text(_IDLE_ENGINE)
        async with pool_of(model(ONE, batch_tokens=2048), engine_file=file) as pool:
            nothing = await cpu_a_request(pool, 500)
    async with pool_of(model(ONE, batch_tokens=2048)) as pool:
        real = await cpu_a_request(pool, 20)
    report.row("CPU of a request of 32 texts (ms)", wire_and_pool=1000 * nothing, with_minilm=1000 * real)
    report.bar("pool and wire against the whole request", value=nothing / real, at_most=0.02)


PARTS: dict[str, Callable[[Report, Any], Any]] = {
    "cycles": cycles,
    "turns": turns,
    "sizes": sizes,
    "questions": questions,
    "wire": wire,
}


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--chars", type=int, default=200, help="of a job; the shorter, the more loading weighs")
    parser.add_argument("--sample", type=int, default=40, help="jobs of plain LRU")
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, of {', '.join(PARTS)}")
    options = parser.parse_args(argv)
    report = Report("pool", options.out)
    for name in options.only.split(","):
        asyncio.run(PARTS[name](report, options))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
