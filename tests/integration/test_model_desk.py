"""`msearch models` and the routes behind it, over a pool with a fake engine."""

import asyncio
import json

import pytest
from inference_fakes import embed, fake_model, fake_pool
from live_api import live_api

from msearchd import errors
from msearchd.cli.client import main
from msearchd.gateway.desk import PoolDesk
from msearchd.inference.pool import Lane


async def test_a_model_is_loaded_shown_and_unloaded_by_hand(tmp_path):
    async with fake_pool(tmp_path) as pool:
        desk = PoolDesk(pool, pool._settings)
        (row,) = desk.page().models
        assert (row.name, row.state, row.last_used_ms) == ("fake", "unloaded", None)
        row = await desk.load("fake")
        assert row.state == "ready"
        assert row.engine == "sentence_transformers"
        assert row.device == "cpu"
        assert row.resident_bytes > 1_000_000
        assert row.last_used_ms is not None
        await embed(pool, ["one", "two"])
        assert desk.page().resident_bytes > 1_000_000
        assert (await desk.unload("fake")).state == "unloaded"
        assert desk.page().resident_bytes == 0


async def test_a_pin_loads_and_an_unload_takes_it_away(tmp_path):
    async with fake_pool(tmp_path) as pool:
        desk = PoolDesk(pool, pool._settings)
        row = await desk.pin("fake", is_pinned=True)
        assert row.is_pinned
        assert row.state == "ready"
        assert not (await desk.pin("fake", is_pinned=False)).is_pinned
        await desk.pin("fake", is_pinned=True)
        assert not (await desk.unload("fake")).is_pinned


async def test_a_model_at_work_is_not_unloaded(tmp_path):
    async with fake_pool(tmp_path) as pool:
        desk = PoolDesk(pool, pool._settings)
        await desk.load("fake")
        work = asyncio.create_task(embed(pool, ["@slow"] * 100, lane=Lane.BULK))
        await asyncio.sleep(0.1)
        with pytest.raises(errors.RetryLater, match="is at work"):
            await desk.unload("fake")
        assert (await work).count == 100


async def test_work_that_comes_while_an_unload_is_written_down_is_not_cut_off(tmp_path, monkeypatch):
    async with fake_pool(tmp_path) as pool:
        desk = PoolDesk(pool, pool._settings)
        await desk.load("fake")
        started = []

        async def let_go(key):
            started.append(asyncio.create_task(embed(pool, ["@slow"] * 100, lane=Lane.BULK)))
            await asyncio.sleep(0.1)

        monkeypatch.setattr(pool, "let_go", let_go)
        with pytest.raises(errors.RetryLater, match="is at work"):
            await desk.unload("fake")
        assert (await started[0]).count == 100
        assert desk.page().models[0].restarts == 0


async def test_a_name_that_does_not_exist_is_told_with_those_that_do(tmp_path):
    async with fake_pool(tmp_path) as pool:
        desk = PoolDesk(pool, pool._settings)
        for call in (desk.load("ada"), desk.unload("ada"), desk.pin("ada", is_pinned=True)):
            with pytest.raises(errors.NotFound, match=r"'ada' \(there is: fake\)"):
                await call


async def test_a_model_without_weights_says_what_to_do(tmp_path):
    missing = fake_model(tmp_path).model_copy(update={"source": str(tmp_path / "nowhere")})
    async with fake_pool(tmp_path, missing) as pool:
        desk = PoolDesk(pool, pool._settings)
        with pytest.raises(errors.Misconfigured):
            await desk.load("fake")
        (row,) = desk.page().models
        assert row.state == "unusable"
        assert "nowhere" in row.reason


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def msearch(tmp_path, capsys):
    with live_api(tmp_path / "s"):
        capsys.readouterr()  # what the server logs at its start

        def run(*words):
            code = main(["--socket", str(tmp_path / "s"), *words])
            said = capsys.readouterr()
            return code, said.out, said.err

        yield run


def test_the_table_names_each_model_and_why_one_is_not_usable(msearch):
    code, out, _ = msearch("models")
    head, words, huge, reason = out.splitlines()
    assert code == 0
    assert head.split()[:4] == ["MODEL", "SERVES", "STATE", "ENGINE"]
    assert words.split()[:3] == ["words", "text", "unloaded"]
    assert words.endswith("never")
    assert huge.split()[2] == "unusable"
    assert reason == "  ! no weights (type: this)"


def test_load_pin_and_unload_one(msearch):
    code, out, _ = msearch("models", "load", "words")
    assert code == 0
    assert "2,048 tokens" in out
    assert "5,120 tokens/s" in out
    assert "412 MB" in out
    assert "ready (pinned)" in msearch("models", "pin", "words")[1]
    assert "pinned" not in msearch("models", "unpin", "words")[1]
    assert "unloaded" in msearch("models", "unload", "words")[1]


def test_json_is_the_reply(msearch):
    page = json.loads(msearch("models", "--json")[1])
    assert [model["name"] for model in page["models"]] == ["words", "huge"]
    assert json.loads(msearch("models", "load", "words", "--json")[1])["state"] == "ready"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("load",), 2, "msearch models load NAME"),
        (("load", "ada"), 3, "there is no model 'ada'"),
        (("load", "huge"), 78, "type: this"),
    ],
)
def test_a_mistake_is_told_with_its_exit_code(msearch, words, code, sentence):
    said = msearch("models", *words)
    assert said[0] == code
    assert sentence in said[2]
