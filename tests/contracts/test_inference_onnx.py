"""The onnx engine: the vectors of the other engines, without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from inference_fakes import cosine, embed, rows
from onnx_export import exported

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.sample import Picture
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Pool, Role
from msearchd.inference.weights import describe, find_weights
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.onnx import OnnxEngine
from msearchd.inference.worker.engines.onnx_recipe import pooled
from msearchd.settings.model import EmbeddingModel, InferenceSettings

SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [
    "The ferry to the North Sea island leaves at noon.",
    "",
    "x",
    "grüße aus münchen, 東京タワー, привет 🚢",
    "a sentence that repeats itself. " * 200,
    *(f"passage {number} " + "of a longer text " * (number * 7 % 30) for number in range(20)),
]


@pytest.fixture(scope="module")
def folder() -> Path:
    return exported(find_weights(SOURCE).folder)


@pytest.fixture(scope="module")
def engine(folder):
    made = OnnxEngine()
    made.load(LoadOrder(folder=str(folder), device="cpu", query_prompt="query: "))
    return made


async def test_its_vectors_and_its_space_are_those_of_sentence_transformers(folder, tmp_path):
    common = {"threads": 1, "device": "cpu"}
    models = (
        EmbeddingModel(name="onnx", source=str(folder), engine="onnx", **common),
        EmbeddingModel(name="torch", source=SOURCE, engine="sentence_transformers", **common),
    )
    settings = InferenceSettings(models=models, text_model="onnx")
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    try:
        ours, theirs = [await embed(pool, TEXTS, model=ModelKey(name), deadline_s=100) for name in ("onnx", "torch")]
        spaces = [await pool.space(ModelKey(name)) for name in ("onnx", "torch")]
        facts = {status.name: status for status in pool.snapshot().models}
    finally:
        await pool.close()
    for text, one, other in zip(TEXTS, rows(ours), rows(theirs), strict=True):
        assert cosine(one, other) >= 0.9999, text[:40]
    assert spaces[0].fingerprint == spaces[1].fingerprint
    assert facts["onnx"].resident_bytes < facts["torch"].resident_bytes * 0.7


def test_its_process_never_imports_torch(folder):
    code = (
        "import sys; from msearchd.inference.worker.engines.onnx import OnnxEngine as E;"
        "from msearchd.inference.worker.engines.base import LoadOrder as L;"
        f"e = E(); print(e.load(L(folder={str(folder)!r})).dim, *{{n.partition('.')[0] for n in sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    dim, *modules = done.stdout.split()
    assert dim == "384"
    assert not {"torch", "transformers", "sentence_transformers"} & set(modules)


def test_company_and_padding_change_no_vector(engine):
    prepared = engine.prepare(TEXTS, role="document")
    together = np.frombuffer(engine.embed(prepared, range(len(TEXTS)), width=256).data, "<f4").reshape(-1, 384)
    for index in range(len(TEXTS)):
        width = prepared.lengths[index]
        alone = np.frombuffer(engine.embed(prepared, [index], width=width).data, "<f4")
        assert alone @ together[index] >= 0.99999
        assert np.linalg.norm(alone) == pytest.approx(1.0, abs=1e-5)


def test_prompts_stand_before_questions_alone(engine):
    asked = engine.prepare(["where"], role=Role.QUERY)
    written = engine.prepare(["query: where"], role=Role.DOCUMENT)
    assert asked.items == written.items


def test_it_reads_text_alone(engine):
    with pytest.raises(errors.BadAsset, match="text alone"):
        engine.prepare([Picture(1, 1, b"rgb")], role="document")


def linked(folder: Path, out: Path, **files: object) -> Path:
    """A copy of *folder* with some files replaced (None: left out); ** keys have _ for . and / as __."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).symlink_to(path.resolve())
    for name, value in files.items():
        if value is not None:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(json.dumps(value))
    return out


@pytest.mark.parametrize(
    ("files", "dtype", "words"),
    [
        ({"onnx/model.onnx": None}, "float32", "ships no onnx/model.onnx"),
        ({}, "bfloat16", "computes in float32"),
        ({"modules.json": [{"type": "sentence_transformers.models.Dense", "path": ""}]}, "float32", "module Dense"),
        ({"1_Pooling/config.json": {"pooling_mode": ["cls", "mean"]}}, "float32", "pools by cls and mean"),
        ({"tokenizer.json": None}, "float32", "no tokenizer.json"),
    ],
)
def test_what_it_cannot_do_it_leaves_to_the_next_engine(folder, tmp_path, files, dtype, words):
    with pytest.raises(errors.Misconfigured, match=words) as caught:
        OnnxEngine().load(LoadOrder(folder=str(linked(folder, tmp_path, **files)), dtype=dtype))
    assert caught.value.key == "engine:onnx"  # the pool tries the next one on such a key
    assert caught.value.hint


def test_a_folder_with_the_onnx_form_alone_is_a_model(folder, tmp_path):
    alone = linked(folder, tmp_path, **{"model.safetensors": None})
    card = describe(find_weights(str(alone)).folder, dtype="float32")
    assert card.weight_bytes > 80_000_000
    assert card.fingerprint != describe(folder, dtype="float32").fingerprint


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_is_that_of_sentence_transformers(mode, side):
    torch = pytest.importorskip("torch")
    from sentence_transformers.sentence_transformer.modules import Pooling

    generator = np.random.default_rng(7)
    tokens = generator.normal(size=(3, 5, 4)).astype(np.float32)
    lengths = [5, 3, 1]
    mask = np.array([[int(at < n) for at in range(5)] for n in lengths])
    if side == "left":
        mask = mask[:, ::-1].copy()
    features = {"token_embeddings": torch.from_numpy(tokens), "attention_mask": torch.from_numpy(mask)}
    wanted = Pooling(4, pooling_mode=mode)(features)["sentence_embedding"].numpy()
    np.testing.assert_allclose(pooled(tokens, mask, mode=mode), wanted, rtol=1e-5, atol=1e-6)
