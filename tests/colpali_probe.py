"""What colpali-engine itself makes of a few samples, beside our engine's rows. One JSON line on stdout.

usage, in the environment of colpali-engine: python colpali_probe.py REPOSITORY MODEL_FOLDER
"""
# ruff: noqa: E402 - the stand-in comes before what imports torchvision

import json
import sys
from pathlib import Path

sys.path[:0] = [sys.argv[1], str(Path(__file__).parent)]
import torchvision_shim

torchvision_shim.install()

import colpali_engine.models
import numpy as np
import torch

from msearchd.domain.sample import Picture, Sound
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.colpali import PROCESSORS, ColpaliEngine
from msearchd.inference.worker.engines.decoded import as_image


def main() -> None:
    folder = sys.argv[2]
    name = json.loads(Path(folder, "config.json").read_text())["architectures"][0]
    model = getattr(colpali_engine.models, name).from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()
    processor = getattr(colpali_engine.models, PROCESSORS[name]).from_pretrained(folder)
    engine = ColpaliEngine()
    facts = engine.load(LoadOrder(folder=folder, device="cpu", serves="page"))
    noise = np.random.default_rng(3)
    pictures = [Picture(w, h, noise.bytes(w * h * 3)) for w, h in ((320, 200), (60, 90))]
    texts = ["where is the invoice of the ferry", "red"]
    cases = {
        "text": (texts, "query", lambda: processor.process_queries(texts)),
        "image": (pictures, "document", lambda: processor.process_images([as_image(one) for one in pictures])),
    }
    if "audio" in facts.kinds:
        waves = [noise.normal(size=16_000 * s).astype(np.float32) * 0.1 for s in (1, 2)]
        cases["audio"] = (
            [Sound(16_000, w.tobytes()) for w in waves],
            "document",
            lambda: processor.process_audios(waves),
        )
    report = {"kinds": facts.kinds, "multi": facts.multi, "dim": facts.dim}
    for kind, (samples, role, features) in cases.items():
        out = engine.embed(engine.prepare(samples, role=role), [1, 0], width=1)
        ours = np.split(np.frombuffer(out.data, "<f4").reshape(-1, 128), np.cumsum(out.rows)[:-1])
        with torch.inference_mode():
            whole = model(**features()).float().numpy()
            if kind == "text":  # one at a time: in company the library's rows of ColPali depend on it (see the engine)
                theirs = [model(**processor.process_queries([text])).float().numpy()[0] for text in texts]
            else:
                theirs = [rows[np.abs(rows).sum(-1) > 0] for rows in whole]
        report[kind] = {
            "rows": out.rows,
            "padded": whole.shape[1],
            "norms": [float(np.abs(np.linalg.norm(rows, axis=1) - 1).max()) for rows in ours],
            "gaps": [
                float(np.abs(one - other).max()) if one.shape == other.shape else 9.0
                for one, other in zip(ours, reversed(theirs), strict=True)
            ],
        }
    marked = engine.embed(engine.prepare(["a <image> b <|IMAGE|> c <|im_end|>"], role="query"), [0], width=1)
    report["marked"] = marked.rows
    print(json.dumps(report))


main()
