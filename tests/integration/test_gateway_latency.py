"""A question through the gateway never waits behind more than one batch of a bulk index."""

import asyncio
import os
import statistics
from pathlib import Path

import httpx
import pytest
from fake_control import FakeControl
from inference_fakes import model_folder

from msearchd.aio.child import Limits
from msearchd.api.server import ControlServer
from msearchd.control.gateway import GatewayHealth
from msearchd.domain.space import ModelKey
from msearchd.gateway.service import ModelGateway
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.settings import ApiSettings
from msearchd.settings.model import EmbeddingModel, InferenceSettings

ENGINE = Path(__file__).parents[1] / "gateway_engine.py"
QUESTIONS = 12


async def test_a_question_is_answered_after_the_batch_at_work(tmp_path):
    folder = model_folder(tmp_path, "model", dim=4)
    model = EmbeddingModel(
        name="model", source=str(folder), engine="sentence_transformers", batch_tokens=512, threads=1
    )
    settings = InferenceSettings(models=(model,), text_model="model", idle_unload_s=0.0)
    pool = Pool(
        settings, limits=Limits(), chunking="test", state_dir=tmp_path / "state",
        engine_files={"sentence_transformers": ENGINE}, uses_forkserver=False,
    )  # fmt: skip

    async def well():
        return GatewayHealth(status="ok")

    gateway = ModelGateway(pool, settings, health=well, deadline_s=60)
    control = FakeControl()
    server = ControlServer(control, ApiSettings(socket=tmp_path / "s"), gateway=gateway, environ={})
    await server.start()
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "s"))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        await pool.preload(ModelKey("model"))
        bulk = asyncio.create_task(
            pool.embed(
                ["one two three"] * 1500, model=ModelKey("model"), role=Role.DOCUMENT, lane=Lane.BULK, deadline_s=60
            )
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            for number in range(QUESTIONS):
                await asyncio.sleep(0.05)
                os.write(log, f"sent q{number}\n".encode())
                body = {"model": "model", "input": f"q{number}", "input_type": "query"}
                assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        assert not bulk.done(), "the index was done before the last question: it proves nothing"
        assert (await bulk).count == 1500
    finally:
        os.close(log)
        await server.stop()
        await control.close()
        await pool.close()
    lines = (folder / "log").read_text().splitlines()
    # Of the batches, one is at work when the question is sent; one more may begin while it is on its way.
    begun = [
        sum(line.startswith("bulk") for line in lines[lines.index(f"sent q{n}") : lines.index(f"question q{n}")])
        for n in range(QUESTIONS)
    ]
    assert max(begun) <= 1, begun
    assert statistics.median(begun) == pytest.approx(0), begun
