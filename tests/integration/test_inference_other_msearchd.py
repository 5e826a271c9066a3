"""A model that another msearchd serves: `serve-model` as a real process, asked by the openai engine."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from inference_fakes import cosine, embed, rows
from onnx_export import exported

from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Pool
from msearchd.inference.weights import find_weights
from msearchd.settings.model import EmbeddingModel, InferenceSettings

REPOSITORY = Path(__file__).parents[2]
TEXTS = ["a ferry across the north sea", "the ship over the water", "", *(f"passage {n} " * (n + 1) for n in range(40))]


@pytest.fixture(scope="module")
def folder() -> Path:
    return exported(find_weights("sentence-transformers/all-MiniLM-L6-v2").folder)


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """The URL of a warm `msearchd serve-model` with a key."""
    import socket

    place = tmp_path_factory.mktemp("served")
    key = place / "key"
    key.write_text("open-sesame-this-is-long-enough")
    key.chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "msearchd", "serve-model", "--model-path", str(folder), "--task-type", "embedding",
        "--name", "minilm", "--engine", "onnx", "--device", "cpu", "--threads", "1", "--port", str(port),
        "--api-key-file", str(key),
    ]  # fmt: skip
    log = place / "log"
    with log.open("wb") as out:
        served = subprocess.Popen(command, cwd=REPOSITORY, stdout=out, stderr=out, env=dict(os.environ))
    try:
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while not is_healthy(url):
            assert served.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield url, key
    finally:
        served.send_signal(signal.SIGTERM)
        served.wait(20)


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return json.loads(answer.read()).get("status", "ok") is not None and answer.status == 200
    except OSError:
        return False


async def test_vectors_of_another_msearchd_are_those_of_the_model_here(address, folder, tmp_path):
    url, key = address
    models = (
        EmbeddingModel(name="far", source="minilm", urls=(url,), api_key_file=str(key)),
        EmbeddingModel(name="near", source=str(folder), engine="onnx", device="cpu", threads=1),
    )
    settings = InferenceSettings(models=models, text_model="far")
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    try:
        far, near = [await embed(pool, TEXTS, model=ModelKey(name), deadline_s=60) for name in ("far", "near")]
        engines = [status.engine for status in pool.snapshot().models]
    finally:
        await pool.close()
    assert engines == ["openai", "onnx"]
    for text, one, other in list(zip(TEXTS, rows(far), rows(near), strict=True)):
        if text:  # an empty text is sent as a space: some servers refuse it
            assert cosine(one, other) >= 0.9999, text[:30]
