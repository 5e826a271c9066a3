"""Pictures and pairs through our engine against the library's own calls, in one process, one thread, CPU time.

    python -m bench.kinds_bench [--rounds 3]

Models have random weights of a small real size (6 layers of 384; pictures of 224 px in patches of 32): only speed is looked at.
Pictures: 64 of many sizes, engine (prepare, planned batches) against `SentenceTransformer.encode(batch_size=16)`.
Pairs: 96 texts of 4 to 250 tokens, engine against `CrossEncoder.predict(batch_size=32)`, which sorts them too.
Bars: CPU time of the library over ours at least 0.95; both must give the same rows (else the run fails).
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from pathlib import Path

from bench.common import Report, arguments, interleaved

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    options = arguments(__doc__).parse_args()
    warnings.simplefilter("ignore")
    report = Report("kinds", options.out)
    with tempfile.TemporaryDirectory() as folder:
        _pictures(report, Path(folder) / "clip", rounds=options.rounds)
        _pairs(report, Path(folder) / "cross", rounds=options.rounds)
    return report.finish()


def _pictures(report: Report, place: Path, *, rounds: int) -> None:
    import tiny_models
    from tiny_models import drawings
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    from msearchd.domain.sample import Picture

    size = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_hidden_layers": 6}
    tokenizer = CLIPTokenizer.from_pretrained(tiny_models.folder("clip"))
    text = size | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(text_config=text, vision_config=size | {"image_size": 224, "patch_size": 32})).save_pretrained(
        place
    )
    CLIPProcessor(image_processor=CLIPImageProcessor(), tokenizer=tokenizer).save_pretrained(place)
    dice = random.Random(1)
    images = [
        drawings.draw(dice.choice(drawings.CAPTIONS), seed=seed, size=(dice.randint(100, 800), dice.randint(100, 800)))
        for seed in range(64)
    ]
    samples = [Picture(image.width, image.height, image.tobytes()) for image in images]
    engine = _engine(place, serves="image")
    theirs = [{"image": image} for image in images]
    _compare(
        report, "pictures", lambda: _ours(engine, samples, cost=16 * 196),
        lambda: engine._model.encode(theirs, batch_size=16, normalize_embeddings=True), rounds=rounds,
    )  # fmt: skip


def _pairs(report: Report, place: Path, *, rounds: int) -> None:
    import tiny_models
    import torch
    from tiny_models.cross import WORDS
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from msearchd.domain.sample import Pair

    tokenizer = AutoTokenizer.from_pretrained(tiny_models.folder("cross"), model_max_length=256)
    size = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_hidden_layers": 6}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=256, num_labels=1, **size)
    BertForSequenceClassification(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    dice = random.Random(1)
    texts = [" ".join(dice.choices(WORDS, k=min(245, int(dice.lognormvariate(4, 0.8)) + 2))) for _ in range(96)]
    engine = _engine(place, serves="rerank")
    pairs = [("ferry island", text) for text in texts]
    _compare(
        report, "pairs", lambda: _ours(engine, [Pair(*pair) for pair in pairs], cost=2048),
        lambda: engine._model.predict(pairs, batch_size=32, activation_fn=torch.nn.Identity()), rounds=rounds,
    )  # fmt: skip


def _engine(place: Path, *, serves: str):
    from msearchd.inference.worker import engines
    from msearchd.inference.worker.engines.base import LoadOrder

    engine = engines.make_engine("sentence_transformers")
    engine.load(LoadOrder(folder=str(place), serves=serves, threads=1))
    return engine


def _ours(engine, samples, *, cost: int):
    import numpy as np

    from msearchd.inference.worker import batches

    prepared = engine.prepare(samples, role="document")
    rows = None
    for batch in batches.plan(prepared.lengths, budget_cost=cost, max_width=256):
        found = np.frombuffer(engine.embed(prepared, batch.items, width=batch.width).data, dtype="<f4")
        found = found.reshape(len(batch.items), -1)
        rows = np.zeros((len(samples), found.shape[1]), dtype="<f4") if rows is None else rows
        rows[list(batch.items)] = found
    return rows


def _compare(report: Report, name: str, ours, theirs, *, rounds: int) -> None:
    import numpy as np

    difference = float(np.abs(ours() - theirs().reshape(len(ours()), -1)).max())  # the warm-up of both
    if difference > 1e-3:
        message = f"{name}: rows differ by {difference}"
        raise SystemExit(message)
    costs = interleaved(rounds, {"ours": ours, "library": theirs})
    least = {key: min(cost.cpu_s for cost in found) for key, found in costs.items()}
    report.row(name, ours_cpu_s=least["ours"], library_cpu_s=least["library"], largest_difference=difference)
    report.bar(f"{name}: the library's CPU time over ours", value=least["library"] / least["ours"], at_least=0.95)


if __name__ == "__main__":
    sys.exit(main())
