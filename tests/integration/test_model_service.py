"""`msearchd serve-model`: warm before it is healthy, gone when its worker is, drained when asked to stop."""

import asyncio
import contextlib
import json
import os
import signal

import httpx
import pytest
from inference_fake_engine import vector
from inference_fakes import FAKE, model_folder

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.inference.pool import Pool
from msearchd.model_service import Fortune, ModelService, ServeOrder, model_of, name_of, serves_of
from msearchd.settings.address import Address


class GatedPool(Pool):
    """Its warm-up takes until `gate` is set."""

    gate = None

    async def preload(self, model):
        if self.gate is not None:
            await self.gate.wait()
        await super().preload(model)


def make_pool(tmp_path):
    return lambda settings: GatedPool(
        settings, limits=Limits(), chunking="none", state_dir=tmp_path / "state",
        engine_files={"sentence_transformers": FAKE}, uses_forkserver=False,
    )  # fmt: skip


def order_of(folder, **changes):
    fields = {
        "model_path": str(folder), "task_type": "embedding", "address": Address("127.0.0.1", 0),
        "engine": "sentence_transformers", "threads": 1,
    }  # fmt: skip
    return ServeOrder(**{**fields, **changes})


@contextlib.asynccontextmanager
async def serving(tmp_path, *, gate=None, **changes):
    folder = tmp_path / "model"
    if not folder.exists():
        model_folder(tmp_path, "model")
    service = ModelService(order_of(folder, **changes), make_pool=make_pool(tmp_path))
    service._pool.gate = gate
    stop = asyncio.Event()
    running = asyncio.create_task(service.serve_until(stop))
    try:
        async with asyncio.timeout(20):
            while not service._server.addresses:
                await asyncio.sleep(0.01)
        host, port = service.address
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=20) as client:
            yield service, client, stop, running
    finally:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)


async def until_healthy(client):
    async with asyncio.timeout(20):
        while (await client.get("/health")).status_code != 200:
            await asyncio.sleep(0.01)


async def test_health_is_503_before_the_warm_up_and_200_after_it(tmp_path):
    async with serving(tmp_path, gate=asyncio.Event()) as (service, client, _, _):
        for _ in range(3):
            assert (await client.get("/health")).status_code == 503
        service._pool.gate.set()
        await until_healthy(client)
        reply = (await client.post("/v1/embeddings", json={"input": ["x"]})).json()
        assert reply["model"] == "model"
        assert len(reply["data"][0]["embedding"]) == len(vector("x")) // 4
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["model"]


async def test_usage_is_what_the_model_counted(tmp_path):
    async with serving(tmp_path) as (_, client, _, _):
        for texts in (["one"], ["one two", "three"], ["many words"] * 40):  # alone, gathered, with the index
            usage = (await client.post("/v1/embeddings", json={"input": texts})).json()["usage"]
            assert usage["prompt_tokens"] == sum(1 + len(text.split()) for text in texts)
            assert usage["total_tokens"] == usage["prompt_tokens"]


async def test_the_control_api_is_not_there(tmp_path):
    async with serving(tmp_path) as (_, client, _, _):
        assert (await client.get("/control/v1/status")).status_code == 404


async def test_a_request_before_the_warm_up_waits_for_it(tmp_path):
    async with serving(tmp_path) as (_, client, _, _):
        assert (await client.post("/v1/embeddings", json={"input": "x"})).status_code == 200


async def test_a_worker_that_dies_is_unhealthy_until_it_runs_again(tmp_path):
    async with serving(tmp_path) as (service, client, _, running):
        await until_healthy(client)
        (pid,) = [model.pid for model in service._pool.snapshot().models]
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            while (await client.get("/health")).status_code == 200:
                await asyncio.sleep(0.005)
        await until_healthy(client)
        assert service._pool.snapshot().models[0].pid != pid
        assert not running.done()


async def test_a_worker_that_dies_for_good_ends_the_service_with_1(tmp_path):
    async with serving(tmp_path) as (service, client, _, running):
        await until_healthy(client)
        (tmp_path / "model/refuse-to-load").touch()
        os.kill(service._pool.snapshot().models[0].pid, signal.SIGKILL)
        assert await asyncio.wait_for(running, 30) == 1


async def test_a_model_that_never_loads_ends_the_service_with_1(tmp_path):
    folder = model_folder(tmp_path, "model")
    (folder / "refuse-to-load").touch()
    async with serving(tmp_path) as (_, _, _, running):
        assert await asyncio.wait_for(running, 30) == 1


async def test_stopping_answers_what_was_asked_and_takes_no_more(tmp_path):
    async with serving(tmp_path) as (_, client, stop, running):
        await until_healthy(client)
        slow = asyncio.create_task(client.post("/v1/embeddings", json={"input": ["@slow"] * 60}))
        await asyncio.sleep(0.3)
        stop.set()
        assert (await slow).status_code == 200
        assert len((await slow).json()["data"]) == 60
        assert await asyncio.wait_for(running, 10) == 0
        with pytest.raises(httpx.TransportError):
            await client.get("/health")


async def test_a_key_file_is_asked_for_in_every_call(tmp_path):
    key = tmp_path / "key"
    key.write_text("a-key-of-a-good-length\n")
    key.chmod(0o600)
    async with serving(tmp_path, key_file=key) as (_, client, _, _):
        assert (await client.get("/v1/models")).status_code == 401
        headers = {"authorization": "Bearer a-key-of-a-good-length"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


def test_other_machines_need_a_key(tmp_path):
    folder = model_folder(tmp_path)
    with pytest.raises(errors.Misconfigured, match="can be reached from other machines") as caught:
        ModelService(order_of(folder, address=Address("0.0.0.0", 0)), make_pool=make_pool(tmp_path))
    assert "--api-key-file" in caught.value.hint


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(errors.Misconfigured):
        model_of(order_of(tmp_path / "nothing"))


@pytest.mark.parametrize("wrong", [{"engine": "steam"}, {"name": "My Model"}, {"threads": -1}])
def test_an_option_that_cannot_be_is_named(tmp_path, wrong):
    with pytest.raises(errors.Misconfigured, match=f"--{next(iter(wrong))} "):
        model_of(order_of(model_folder(tmp_path), **wrong))


@pytest.mark.parametrize(
    ("path", "name"),
    [("sentence-transformers/all-MiniLM-L6-v2", "all-minilm-l6-v2"), ("/models/My Model (v2)/", "my-model-v2"),
     ("/models/...", "model"), ("x" * 100, "x" * 63)],
)  # fmt: skip
def test_a_model_is_named_after_its_folder(path, name):
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("kind", "serves"), [("bert", "text"), ("clip", "image"), ("clap", "audio"), ("colpali", "page")]
)
def test_what_a_model_reads_is_seen_from_its_files(tmp_path, kind, serves):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    assert serves_of(tmp_path) == serves


def test_a_clip_model_of_sentence_transformers_is_known_by_its_modules(tmp_path):
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.CLIPModel"}]))
    assert serves_of(tmp_path) == "image"


def test_a_rerank_model_compares(tmp_path):
    assert model_of(order_of(model_folder(tmp_path), task_type="rerank")).serves == "rerank"


def test_three_failed_starts_in_a_row_are_the_end_and_two_are_not():
    fortune = Fortune().after_failed_start().after_failed_start()
    assert not fortune.is_lost
    assert not fortune.after_start().after_failed_start().is_lost
    assert fortune.after_failed_start().is_lost


def test_a_poisonous_text_is_not_the_end_and_dying_on_and_on_is():
    fortune = Fortune()
    for second in range(14):
        fortune = fortune.after_deaths(1, now=float(second))
    assert not fortune.is_lost
    assert fortune.after_deaths(12, now=20.0).is_lost
    assert not fortune.after_deaths(12, now=500.0).is_lost
