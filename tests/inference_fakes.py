"""Pools over the fake engine, for the tests of inference/."""

import contextlib
import json
import struct
from pathlib import Path

from inference_fake_engine import DIM, vector

from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings.model import EmbeddingModel, InferenceSettings

FAKE = Path(__file__).with_name("inference_fake_engine.py")
MODEL = ModelKey("fake")


def model_folder(parent: Path, name: str = "model", *, dim: int | None = DIM, weights: bytes = b"w" * 1000) -> Path:
    folder = parent / name
    folder.mkdir(parents=True)
    config = {"hidden_size": dim} if dim else {}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def fake_model(tmp_path: Path, name: str = "fake", *, ballast_mb: int = 0, **changes) -> EmbeddingModel:
    folder = model_folder(tmp_path, name)
    if ballast_mb:
        (folder / "ballast").write_text(str(ballast_mb))
    return EmbeddingModel(
        **{
            "name": name,
            "source": str(folder),
            "engine": "sentence_transformers",
            "batch_tokens": 512,
            "threads": 1,
        }
        | changes
    )


@contextlib.asynccontextmanager
async def fake_pool(
    tmp_path: Path, *models: EmbeddingModel, budget_bytes: int | None = None, look=tuple, book=None, **settings
):
    models = models or (fake_model(tmp_path),)
    pool = Pool(
        InferenceSettings(text_model=models[0].name, models=models, **{"idle_unload_s": 0.0} | settings),
        limits=Limits(),
        chunking="test",
        state_dir=tmp_path / "state",
        budget_bytes=budget_bytes,
        engine_files={"sentence_transformers": FAKE},
        uses_forkserver=False,
        look=look,
        book=book,
    )
    try:
        yield pool
    finally:
        await pool.close()


async def embed(pool, texts, *, lane=Lane.BULK, role=Role.DOCUMENT, model=MODEL, deadline_s=30.0):
    return await pool.embed(texts, model=model, role=role, lane=lane, deadline_s=deadline_s)


def rows(vectors) -> list[bytes]:
    return [vectors.row(index) for index in range(vectors.count)]


def expected(texts) -> list[bytes]:
    return [vector(text) for text in texts]


def cosine(one: bytes, other: bytes) -> float:
    pairs = zip(struct.iter_unpack("<f", one), struct.iter_unpack("<f", other), strict=True)
    return sum(a * b for (a,), (b,) in pairs)
