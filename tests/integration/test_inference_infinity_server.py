"""Models on real servers of infinity-emb (its own HTTP server, started here): text and rankings, and one that is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from inference_fakes import cosine, embed, rows

from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference import environments, remote
from msearchd.inference.pool import Lane, Pool
from msearchd.inference.weights import find_weights
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.openai import OpenaiEngine
from msearchd.settings.model import EmbeddingModel, InferenceSettings

PYTHON = environments.find_python("infinity")
pytestmark = [
    pytest.mark.slow,  # two servers import torch
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not PYTHON or not environments.has_package(PYTHON, "fastapi"),
        reason="infinity's environment has no server: type `make infinity`",
    ),
]
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [f"passage {number} tells of the ferry " * (1 + number % 5) for number in range(320)]
PAIRS = ["snow ferry island", "oven garden letter", "the ferry", ""]


class Server:
    """infinity_emb v2 on a free port with MiniLM and a small cross-encoder, as a person starts it."""

    def __init__(self, cross: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "DO_NOT_TRACK": "1",
            "INFINITY_ANONYMOUS_USAGE_STATS": "0",
            "OMP_NUM_THREADS": "1",
        }
        quiet["INFINITY_HOME"] = str(Path(tempfile.gettempdir()) / "msearchd-test-infinity")
        models = ["--model-id", str(find_weights(SOURCE).folder), "--served-model-name", "minilm"]
        models += ["--model-id", str(cross), "--served-model-name", "cross"]
        options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--no-model-warmup"]
        program = str(Path(PYTHON).with_name("infinity_emb"))
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [program, "v2", "--host", "127.0.0.1", "--port", str(port), *models, *options],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | quiet,
            )  # fmt: skip

    def wait_until_up(self) -> None:
        until = time.monotonic() + 150
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2):
                return
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.2)


@pytest.fixture(scope="module")
def servers(tiny_cross, tmp_path_factory):
    place = tmp_path_factory.mktemp("servers")
    started = [Server(tiny_cross, place / f"log{number}") for number in range(2)]
    try:
        for server in started:
            server.wait_until_up()
        yield started
    finally:
        for server in started:
            with contextlib.suppress(ProcessLookupError):
                server.process.send_signal(signal.SIGKILL)
            server.process.wait(20)


async def test_its_vectors_and_scores_are_those_of_the_same_models_here(servers, tiny_cross, tmp_path):
    urls = tuple(server.url for server in servers)
    here = {"engine": "sentence_transformers", "device": "cpu", "threads": 1}
    models = (
        EmbeddingModel(name="far", source="minilm", urls=urls),
        EmbeddingModel(name="near", source=SOURCE, **here),
        EmbeddingModel(name="far-cross", source="cross", urls=urls, serves="rerank"),
        EmbeddingModel(name="near-cross", source=str(tiny_cross), serves="rerank", **here),
    )
    settings = InferenceSettings(models=models, text_model="far", rerank_model="far-cross")
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    try:
        far, near = [await embed(pool, TEXTS[:50], model=ModelKey(name), deadline_s=120) for name in ("far", "near")]
        scores = [
            await pool.rerank("ferry", PAIRS[:3], model=ModelKey(name), lane=Lane.INTERACTIVE, deadline_s=120)
            for name in ("far-cross", "near-cross")
        ]
        engines = {status.name: status.engine for status in pool.snapshot().models}
    finally:
        await pool.close()
    assert (engines["far"], engines["far-cross"]) == ("openai", "openai")
    for text, one, other in zip(TEXTS, rows(far), rows(near), strict=False):
        assert cosine(one, other) >= 0.9999, text[:30]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_one_of_two_is_killed_in_the_middle_and_the_other_does_the_rest(servers, tmp_path):
    wanted = EmbeddingModel(name="far", source="minilm", urls=tuple(server.url for server in servers))
    engine = OpenaiEngine()
    engine.load(LoadOrder(folder=str(remote.write_card(wanted, state_dir=tmp_path))))
    prepared = engine.prepare(TEXTS, role="document")
    whole = bytes(engine.embed(prepared, range(len(TEXTS)), width=1).data)
    before = {one.url: one.served for one in engine._fleet.snapshot()}
    assert min(before.values()) >= 2, before  # both work
    dying = servers[0]
    answers: list[bytes] = []

    def work() -> None:
        for _ in range(4):
            answers.append(bytes(engine.embed(prepared, range(len(TEXTS)), width=1).data))  # noqa: PERF401 - is watched

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while not answers:  # in the middle: some are done, three times as many are to come
            assert worker.is_alive()
            time.sleep(0.01)
        dying.process.kill()
    finally:
        worker.join(240)
    assert len(answers) == 4
    size = len(whole) // len(TEXTS)
    for answer in answers:
        for start in range(0, len(whole), size):
            assert cosine(answer[start : start + size], whole[start : start + size]) >= 0.9999
    after = {one.url: one for one in engine._fleet.snapshot()}
    assert after[dying.url].failures >= 1
    assert after[servers[1].url].failures == 0
    engine.close()
