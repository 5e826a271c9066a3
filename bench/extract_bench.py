"""Small text files through the extract workers, against a bare loop that does the same to the bytes.

    python -m bench.extract_bench [files]

Bare loop: read, BLAKE3, decode, cut into passages; one process, no wire, no type detection, no checks. Ours:
`identify_extract` through the real worker. The ratio is of the CPU time of daemon and worker together (and of the wall
time, which tells what a second core gives), best of five interleaved rounds. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import structlog
from blake3 import blake3

from msearchd.aio.child import Limits
from msearchd.media.chunk import ChunkRules, split_text
from msearchd.media.client import Extractors
from msearchd.media.registry import Structure
from msearchd.settings.model import ExtractSettings

_WORDS = (
    "the",
    "ferry",
    "storm",
    "harbour",
    "lamp",
    "orchard",
    "walnut",
    "glacier",
    "survey",
    "mirror",
    "violin",
    "river",
    "tide",
)
_ROUNDS = 5


def write_files(folder: Path, count: int) -> list[bytes]:
    """Markdown, text and code of 0.5 to 16 KB, as notes and sources are."""
    rng = random.Random(1)
    paths = []
    for number in range(count):
        sentences = [
            " ".join(rng.choices(_WORDS, k=rng.randint(5, 16))).capitalize() + "." for _ in range(rng.randint(8, 240))
        ]
        text = "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, len(sentences), 5))
        path = folder / f"note{number}{rng.choice(['.md', '.txt', '.py'])}"
        path.write_text(text)
        paths.append(os.fsencode(path))
    return paths


def bare(paths: list[bytes], rules: ChunkRules) -> int:
    passages = 0
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        blake3(data).digest()
        text = data.decode()
        structure = {b".md": Structure.MARKDOWN, b".py": Structure.CODE}.get(path[-3:], Structure.PROSE)
        passages += len([text[part.start : part.end] for part in split_text(text, rules=rules, structure=structure)])
    return passages


async def ours(extractors: Extractors, paths: list[bytes]) -> int:
    passages = 0
    for start in range(0, len(paths), 8):  # eight in flight, as the dispatcher has
        for _, extraction in await asyncio.gather(
            *(extractors.identify_extract(path) for path in paths[start : start + 8])
        ):
            passages += len(extraction.segments)
    return passages


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(count: int) -> dict[str, object]:
    settings = ExtractSettings(recycle_after=10**9)
    rules = ChunkRules(settings.chunk_chars, settings.chunk_overlap_chars)
    best = {"bare_cpu": 1e9, "bare_wall": 1e9, "our_cpu": 1e9, "our_worker_cpu": 1e9, "our_wall": 1e9}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), count)
        extractors = Extractors(settings, Limits())
        try:
            await ours(extractors, paths[:50])
            pid = extractors._pool._seats[0].child.pid
            for _ in range(_ROUNDS):
                wall, cpu = time.perf_counter(), time.process_time()
                expected = bare(paths, rules)
                bare_wall, bare_cpu = time.perf_counter() - wall, time.process_time() - cpu
                wall, cpu, worker = time.perf_counter(), time.process_time(), cpu_of(pid)
                found = await ours(extractors, paths)
                our_wall, our_worker = time.perf_counter() - wall, cpu_of(pid) - worker
                our_cpu = time.process_time() - cpu + our_worker
                assert found == expected, (found, expected)
                for name, value in locals().items():
                    if name in best:
                        best[name] = min(best[name], value)
                best["our_worker_cpu"] = min(best["our_worker_cpu"], our_worker)
        finally:
            await extractors.close()
    return {
        "files": count,
        "passages": found,
        "files_per_s": round(count / best["our_wall"]),
        "bare_files_per_s": round(count / best["bare_wall"]),
        "cpu_ms_per_file": round(best["our_cpu"] / count * 1000, 3),
        "worker_cpu_ms_per_file": round(best["our_worker_cpu"] / count * 1000, 3),
        "bare_cpu_ms_per_file": round(best["bare_cpu"] / count * 1000, 3),
        "cpu_ratio": round(best["our_cpu"] / best["bare_cpu"], 2),
        "wall_ratio": round(best["our_wall"] / best["bare_wall"], 2),
    }


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print(json.dumps(asyncio.run(measure(count))))


if __name__ == "__main__":
    main()
