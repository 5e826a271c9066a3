"""What the smaller engines cost beside sentence-transformers, over the same weights (MiniLM, fp32, one thread, CPU time).

    python -m bench.engines_bench [--texts 200] [--rounds 3]

onnx: the same texts in the same batches, in processes of their own that take turns; memory and CPU time from nothing to
ready. openai: CPU time of our side of a request against that of embedding the same texts here. A bar that is missed: 1.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench.common import Report, arguments
from msearchd.inference.weights import find_weights

SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
BUDGET = 2048


def texts(count: int, seed: int = 5) -> list[str]:
    """Log-normal lengths around 60 words, most common English words."""
    chance = random.Random(seed)
    words = [
        "the",
        "of",
        "and",
        "to",
        "in",
        "is",
        "that",
        "for",
        "it",
        "as",
        "was",
        "with",
        "be",
        "by",
        "on",
        "not",
        "he",
        "his",
        "but",
        "at",
        "are",
        "this",
        "have",
        "from",
        "or",
        "had",
        "an",
    ]
    return [" ".join(chance.choices(words, k=max(3, int(chance.lognormvariate(3.9, 0.7))))) for _ in range(count)]


class Child:
    """One engine in one process; a line in, a line of figures out."""

    def __init__(self, engine: str, folder: str, count: int) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "bench.engines_bench", "--child", engine, folder, str(count)]
        env = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin"}
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.ready = json.loads(self._process.stdout.readline())

    def round(self) -> float:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["cpu_s"]

    def end(self) -> dict[str, float]:
        self._process.stdin.close()
        last = json.loads(self._process.stdout.readline())
        self._process.wait()
        return last


def child(engine_name: str, folder: str, count: int) -> None:
    """Load, embed once a line, and tell what that cost."""
    import resource
    import time

    from msearchd.inference.worker import batches, engines
    from msearchd.inference.worker.engines.base import LoadOrder

    engine = engines.make_engine(engine_name)
    facts = engine.load(LoadOrder(folder=folder, device="remote" if engine_name == "openai" else "cpu"))
    all_texts = texts(count)

    def say(**figures: float) -> None:
        print(json.dumps(figures), flush=True)

    say(cpu_s=time.process_time(), resident_mb=_resident_mb())
    for _ in sys.stdin:
        began = time.process_time()
        prepared = engine.prepare(all_texts, role="document")
        for batch in batches.plan(prepared.lengths, budget_cost=BUDGET, max_width=facts.max_tokens):
            engine.embed(prepared, batch.items, width=batch.width)
        say(cpu_s=time.process_time() - began)
    say(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    engine.close()


def _resident_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(argv: list[str] | None = None) -> int:
    parser = arguments(__doc__)
    parser.add_argument("--texts", type=int, default=200)
    options = parser.parse_args(argv)
    from model_servers import ModelServer
    from onnx_export import exported

    from msearchd.inference import remote
    from msearchd.settings.model import EmbeddingModel

    report = Report("engines", options.out)
    folder = find_weights(SOURCE).folder
    server = ModelServer()
    state = Path("/tmp") / "msearchd-engines-bench"
    far = EmbeddingModel(name="far", source="letters", engine="openai", urls=(server.url,))
    folders = {
        "sentence_transformers": str(folder),
        "onnx": str(exported(folder)),
        "openai": str(remote.write_card(far, state_dir=state)),
    }
    children = {engine: Child(engine, place, options.texts) for engine, place in folders.items()}
    seconds: dict[str, list[float]] = {engine: [] for engine in children}
    for number in range(options.rounds + 1):
        for engine, one in children.items():
            cost = one.round()
            if number:  # the first one warms up
                seconds[engine].append(cost)
    last = {engine: one.end() for engine, one in children.items()}
    server.close()
    for engine, one in children.items():
        report.row(
            engine, texts_per_cpu_s=options.texts / min(seconds[engine]), ready_cpu_s=one.ready["cpu_s"],
            ready_mb=one.ready["resident_mb"], peak_mb=last[engine]["peak_mb"],
        )  # fmt: skip
    torch, onnx, openai = (seconds[name] for name in ("sentence_transformers", "onnx", "openai"))
    faster = statistics.median(a / b for a, b in zip(torch, onnx, strict=True))
    report.bar("onnx: speed against sentence-transformers", value=faster, at_least=0.9)
    ready = children["onnx"].ready["cpu_s"] / children["sentence_transformers"].ready["cpu_s"]
    report.bar("onnx: CPU time until ready, against the same", value=ready, at_most=0.25)
    memory = last["onnx"]["peak_mb"] / last["sentence_transformers"]["peak_mb"]
    report.bar("onnx: peak memory against the same", value=memory, at_most=0.6)
    asking = statistics.median(a / b for a, b in zip(openai, torch, strict=True))
    report.bar("openai: CPU of asking against that of embedding here", value=asking, at_most=0.05)
    return report.finish()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(main())
