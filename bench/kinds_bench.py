"""Pictures, pairs and weighted words through our engine against the library's own calls, in one process, one thread, CPU time.

    python -m bench.kinds_bench [--rounds 3]

Models have random weights of a small real size (6 layers of 384; pictures of 224 px in patches of 32): only speed is looked at.
Pictures: 64 of many sizes, engine (prepare, planned batches) against `SentenceTransformer.encode(batch_size=16)`.
Pairs: 96 texts of 4 to 250 tokens, engine against `CrossEncoder.predict(batch_size=32)`, which sorts them too.
Words: 96 such texts, a SPLADE with BERT's 30,522 words of which some hundred light up, engine against
`SparseEncoder.encode_document(max_active_dims=256)`, which sorts them too; and the peak memory of one pass of each, less
what the loaded model has, in processes of their own.
Bars: CPU time of the library over ours at least 0.95; both must give the same rows (else the run fails).
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from bench.common import Report, arguments, interleaved

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--peak", nargs=2, metavar=("WHO", "MODEL"), help="(internal) print the peak bytes of one pass")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        print(_peak_bytes(*options.peak))
        return 0
    report = Report("kinds", options.out)
    with tempfile.TemporaryDirectory() as folder:
        _pictures(report, Path(folder) / "clip", rounds=options.rounds)
        _pairs(report, Path(folder) / "cross", rounds=options.rounds)
        _words(report, Path(folder) / "sparse", rounds=options.rounds)
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


def _words(report: Report, place: Path, *, rounds: int) -> None:
    _make_splade(place)
    engine = _engine(place, serves="sparse")
    texts = _texts(96)
    _compare(
        report, "words", lambda: _dense(engine, texts),
        lambda: engine_free(place).encode_document(texts, batch_size=32, max_active_dims=256).to_dense().numpy(), rounds=rounds,
    )  # fmt: skip
    peaks = {}
    for who in ("ours", "library"):
        command = [sys.executable, "-W", "ignore", "-m", "bench.kinds_bench", "--peak", who, str(place)]
        peaks[who] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    report.row("words: peak memory of a pass", **{f"{who}_mb": peak / 1e6 for who, peak in peaks.items()})
    report.bar("words: our peak memory over the library's", value=peaks["ours"] / peaks["library"], at_most=0.5)


def engine_free(place: Path, *, kept: dict = {}):  # noqa: B006 - loaded once on purpose
    """The library's own model, untouched by our engine."""
    from sentence_transformers import SparseEncoder

    if place not in kept:
        kept[place] = SparseEncoder(str(place), device="cpu", local_files_only=True)
    return kept[place]


def _make_splade(place: Path) -> None:
    import tiny_models
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    size = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_hidden_layers": 6}
    masked = BertForMaskedLM(BertConfig(vocab_size=30_522, max_position_embeddings=256, **size))
    with torch.no_grad():
        masked.cls.predictions.bias.fill_(-1.35)  # so that some hundred words light up, as in a trained one
    backbone = place.with_name("backbone")
    masked.save_pretrained(backbone)
    AutoTokenizer.from_pretrained(tiny_models.folder("sparse"), model_max_length=256).save_pretrained(backbone)
    transformer = Transformer(str(backbone), max_seq_length=256, transformer_task="fill-mask")
    SparseEncoder(modules=[transformer, SpladePooling("max")], device="cpu").save(str(place))


def _texts(count: int) -> list[str]:
    from tiny_models.cross import WORDS

    dice = random.Random(1)
    return [" ".join(dice.choices(WORDS, k=min(245, int(dice.lognormvariate(4, 0.8)) + 2))) for _ in range(count)]


def _dense(engine, texts):
    """What the engine gives, as the library's dense table."""
    import numpy as np

    from msearchd.inference.worker import batches

    prepared = engine.prepare(texts, role="document")
    table = np.zeros((len(texts), 30_522), dtype="<f4")
    for batch in batches.plan(prepared.lengths, budget_cost=2048, max_width=256):
        out = engine.embed(prepared, batch.items, width=batch.width)
        entries = np.frombuffer(out.data, dtype=[("dimension", "<u4"), ("weight", "<f4")])
        rows = np.repeat(np.array(batch.items), out.rows)
        table[rows, entries["dimension"]] = entries["weight"]
    return table


def _peak_bytes(who: str, model: str) -> int:
    """Peak resident bytes of one pass over 96 texts, beyond those of the loaded and warmed model."""
    import torch

    torch.set_num_threads(1)
    texts, place = _texts(96), Path(model)
    if who == "ours":
        engine = _engine(place, serves="sparse")
        run = lambda some: _dense(engine, some).shape  # noqa: E731
    else:
        loaded = engine_free(place)
        run = lambda some: loaded.encode_document(some, batch_size=32, max_active_dims=256).shape  # noqa: E731
    run(["ferry"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(texts)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


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
