"""Embedding through pool and wire, against the bare loop and the libraries' own batching: one thread, CPU seconds.

    python -m bench.inference_bench [--passages 400] [--rounds 4] [--engine sentence_transformers|infinity] [--bf16]

Interleaved rounds over the same passages of: the pool (16 callers with a few passages each, as files come; CPU of the
worker AND of this process), a raw transformers forward over length-sorted batches of 32, `SentenceTransformer.encode`,
and infinity's own `embed` where its environment exists. Each peer lives in its own process with the model loaded.
Prints CPU seconds (least of the rounds) and ratios: above 1 the pool is cheaper.
Bars: raw >= 1.0, encode >= 1.2, infinity embed >= 1.2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.corpus import real_text_files
from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference import environments, spec
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.inference.weights import find_weights
from msearchd.settings.model import EmbeddingModel, InferenceSettings

SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = ModelKey("bench")
BARS = {"raw, sorted, 32 a batch": 1.0, "SentenceTransformer.encode": 1.2, "infinity embed": 1.2}

#: Runs in a process of its own: load once, then one round per line of stdin; prints its CPU seconds.
_PEER = """
import json, os, sys, time
kind, folder, file = sys.argv[1:4]
texts = json.load(open(file))
import torch
torch.set_num_threads(1)
if kind == "raw":
    from transformers import AutoModel, AutoTokenizer
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    def run(texts):
        with torch.inference_mode():
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            rows = [None] * len(texts)
            for start in range(0, len(order), 32):
                part = order[start:start + 32]
                batch = tokenizer([texts[i] for i in part], padding=True, truncation=True, max_length=256,
                                  return_tensors="pt")
                out = model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                pooled = torch.nn.functional.normalize((out * mask).sum(1) / mask.sum(1), dim=1).numpy()
                for place, i in enumerate(part):
                    rows[i] = pooled[place]
elif kind == "encode":
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    def run(texts):
        model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
else:
    import asyncio
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs
    loop = asyncio.new_event_loop()
    engine = AsyncEmbeddingEngine.from_args(EngineArgs(
        model_name_or_path=folder, engine="torch", device="cpu", batch_size=32, dtype="float32", bettertransformer=False,
        model_warmup=False, trust_remote_code=False, revision=None))
    loop.run_until_complete(engine.astart())
    def run(texts):
        loop.run_until_complete(engine.embed(texts))
run(texts[:40])
print("READY", flush=True)
for line in sys.stdin:
    began = time.process_time()
    run(texts)
    print("CPU", time.process_time() - began, flush=True)
os._exit(0)  # infinity's threads would keep the process for ever
"""


def passages(count: int, *, seed: int = 3) -> list[str]:
    """Passages of real files as an indexer cuts them: paragraphs gathered to at most 800 characters, short ones included."""
    rng = random.Random(seed)
    found: list[str] = []
    for path in real_text_files(count // 2):
        gathered = ""
        for paragraph in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            if gathered and len(gathered) + len(paragraph) > 800:
                found.append(gathered[:800])
                gathered = ""
            gathered = f"{gathered}\n{paragraph}".strip()
        found.append(gathered[:800])
    found = [text for text in found if text]
    rng.shuffle(found)
    return found[:count]


class Peer:
    def __init__(self, kind: str, python: str, folder: str, file: str) -> None:
        env = {
            **os.environ,
            **spec.worker_env(
                threads=1, allow_download=False, state_dir=Path(tempfile.gettempdir()) / "msearchd-bench"
            ),
        }
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-c", _PEER, kind, folder, file],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._answer("READY")

    def round(self) -> float:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._answer("CPU").split()[1])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self, word: str) -> str:
        for line in self._process.stdout:
            if line.startswith(word):
                return line
        raise SystemExit("a peer ended early")


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def round_of_pool(pool: Pool, texts: list[str]) -> tuple[float, float]:
    """CPU seconds of (worker, this process) for all passages, handed in by 16 callers with 1 to 12 passages each."""
    rng = random.Random(5)
    calls: list[list[str]] = []
    start = 0
    while start < len(texts):
        size = rng.randint(1, 12)
        calls.append(texts[start : start + size])
        start += size
    waiting = iter(calls)

    async def caller() -> None:
        for call in waiting:
            await pool.embed(call, model=MODEL, role=Role.DOCUMENT, lane=Lane.BULK, deadline_s=600)

    pid = pool.snapshot().models[0].pid
    worker, ours = cpu_of(pid), time.process_time()
    await asyncio.gather(*(caller() for _ in range(16)))
    return cpu_of(pid) - worker, time.process_time() - ours


async def measure(count: int, rounds: int, engine: str, dtype: str) -> dict[str, object]:
    folder = str(find_weights(SOURCE).folder)
    texts = passages(count)
    with tempfile.TemporaryDirectory() as state:
        file = Path(state) / "texts.json"
        file.write_text(json.dumps(texts))
        peers = {
            "raw, sorted, 32 a batch": Peer("raw", sys.executable, folder, str(file)),
            "SentenceTransformer.encode": Peer("encode", sys.executable, folder, str(file)),
        }
        if python := environments.find_infinity_python():
            peers["infinity embed"] = Peer("infinity", python, folder, str(file))
        model = EmbeddingModel(name=MODEL, source=SOURCE, engine=engine, threads=1, dtype=dtype)
        pool = Pool(
            InferenceSettings(models=(model,), text_model=MODEL), limits=Limits(), chunking="", state_dir=Path(state)
        )
        took: dict[str, list[float]] = {name: [] for name in ("pool", "of it here", *peers)}
        try:
            await pool.preload(MODEL)
            for _ in range(2):  # it learns the size of its batches
                await round_of_pool(pool, texts)
            for _ in range(rounds):
                worker, ours = await round_of_pool(pool, texts)
                took["pool"].append(worker + ours)
                took["of it here"].append(ours)
                for name, peer in peers.items():
                    took[name].append(await asyncio.to_thread(peer.round))
        finally:
            await pool.close()
            for peer in peers.values():
                peer.close()
    least = {name: min(values) for name, values in took.items()}
    ratios = {name: least[name] / least["pool"] for name in peers}
    return {
        "passages": len(texts),
        "rounds": rounds,
        "engine": engine,
        "dtype": dtype,
        "cpu_s": least,
        "ratios": ratios,
        "bars": {name: bar for name, bar in BARS.items() if name in ratios},
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--engine", default="sentence_transformers", choices=["sentence_transformers", "infinity"])
    parser.add_argument(
        "--bf16", action="store_true", help="let the pool compute in bfloat16 (other vectors: another space)"
    )
    arguments = parser.parse_args(argv)
    result = asyncio.run(
        measure(arguments.passages, arguments.rounds, arguments.engine, "bfloat16" if arguments.bf16 else "float32")
    )
    print(json.dumps(result, indent=2))
    misses = [name for name, bar in result["bars"].items() if result["ratios"][name] < bar]
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio:.2f} x the CPU of the pool (bar {BARS[name]})" + ("  MISSED" if name in misses else ""))
    return 1 if misses else 0


if __name__ == "__main__":
    raise SystemExit(main())
