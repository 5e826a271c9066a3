import asyncio
import os
import time

import pytest
from inference_fakes import MODEL, cosine, embed, expected, fake_model, fake_pool, rows

from msearchd import errors
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import Lane, Role


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition, *, deadline_s=10.0):
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_vectors_come_in_the_order_of_the_texts(tmp_path):
    texts = [f"text {number} " + "word " * (number * 37 % 90) for number in range(300)]
    async with fake_pool(tmp_path) as pool:
        vectors = await embed(pool, texts)
    assert rows(vectors) == expected(texts)


async def test_many_callers_each_get_their_own(tmp_path):
    calls = [[f"call {number} text {index}" for index in range(number % 7 + 1)] for number in range(60)]
    async with fake_pool(tmp_path) as pool:
        results = await asyncio.gather(*(embed(pool, call) for call in calls))
    assert [rows(result) for result in results] == [expected(call) for call in calls]


async def test_no_texts_are_no_vectors_and_load_nothing(tmp_path):
    async with fake_pool(tmp_path) as pool:
        vectors = await embed(pool, [])
        assert (vectors.count, vectors.dim) == (0, 8)
        assert pool.snapshot().models[0].state == "unloaded"


async def test_the_space_is_known_without_loading_and_is_the_loaded_one(tmp_path):
    async with fake_pool(tmp_path) as pool:
        space = await pool.space(MODEL)
        assert pool.snapshot().models[0].state == "unloaded"
        await pool.preload(MODEL)
        assert await pool.space(MODEL) == space
        assert space.name == f"fake-{space.fingerprint[:12]}"
        assert space.dim == 8


async def test_a_space_that_the_files_do_not_tell_is_learned_by_loading(tmp_path):
    folder = fake_model(tmp_path / "x").source
    os.truncate(f"{folder}/config.json", 0)
    with open(f"{folder}/config.json", "w") as file:
        file.write("{}")
    async with fake_pool(tmp_path, fake_model(tmp_path, source=folder)) as pool:
        assert (await pool.space(MODEL)).dim == 8


async def test_a_folder_that_promises_another_dimension_is_refused(tmp_path):
    model = fake_model(tmp_path)
    with open(f"{model.source}/config.json", "w") as file:
        file.write('{"hidden_size": 99}')
    async with fake_pool(tmp_path, model) as pool:
        for _ in range(2):
            with pytest.raises(errors.Misconfigured, match="99"):
                await embed(pool, ["a"])


async def test_questions_and_passages_get_their_own_prompt(tmp_path):
    model = fake_model(tmp_path, query_prompt="query: ", document_prompt="passage: ")
    async with fake_pool(tmp_path, model) as pool:
        question = await embed(pool, ["ferry"], role=Role.QUERY, lane=Lane.INTERACTIVE)
        passage = await embed(pool, ["ferry"])
    assert rows(question) == expected(["query: ferry"])
    assert rows(passage) == expected(["passage: ferry"])


async def test_lone_surrogates_are_replaced_not_fatal(tmp_path):
    texts = ["caf\udce9.txt", "\ud800", "plain", "grüße"]
    for lane in Lane:
        async with fake_pool(tmp_path / lane.name, fake_model(tmp_path / lane.name)) as pool:
            vectors = await embed(pool, texts, lane=lane)
        assert rows(vectors) == expected(["caf?.txt", "?", "plain", "grüße"])


async def test_a_question_overtakes_bulk_work_between_two_batches(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, batch_tokens=64)) as pool:
        await pool.preload(MODEL)
        bulk = asyncio.create_task(
            embed(pool, [f"@slow passage {number}" for number in range(120)])
        )  # 30 batches of 80 ms
        await asyncio.sleep(0.3)
        began = time.monotonic()
        answer = await embed(pool, ["question"], lane=Lane.INTERACTIVE, role=Role.QUERY)
        waited_s = time.monotonic() - began
        assert not bulk.done()
        assert rows(answer) == expected(["question"])
        assert waited_s < 1.0
        await bulk


async def test_an_unused_model_is_unloaded_by_the_end_of_its_process(tmp_path):
    async with fake_pool(tmp_path, idle_unload_s=0.3) as pool:
        await embed(pool, ["a"])
        pid = pool.snapshot().models[0].pid
        assert pool.snapshot().models[0].resident_bytes > 0
        await until(lambda: pool.snapshot().models[0].state == "unloaded" and not is_running(pid))
        assert rows(await embed(pool, ["a"])) == expected(["a"])


async def test_a_pinned_model_stays(tmp_path):
    async with fake_pool(tmp_path, idle_unload_s=0.1) as pool:
        await embed(pool, ["a"])
        await pool.pin(MODEL)
        await asyncio.sleep(0.5)
        assert pool.snapshot().models[0].state == "ready"


async def test_a_model_at_work_is_not_unloaded_however_long_it_takes(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, batch_tokens=64), idle_unload_s=0.1) as pool:
        texts = [f"@slow {number}" for number in range(30)]
        assert rows(await embed(pool, texts)) == expected(texts)
        assert pool.snapshot().models[0].restarts == 0


async def test_two_models_that_do_not_fit_together_take_turns(tmp_path):
    models = [fake_model(tmp_path, name, ballast_mb=300) for name in ("one", "two")]
    async with fake_pool(tmp_path, *models, budget_bytes=600 << 20) as pool:
        for name in ("one", "two", "one"):
            assert rows(await embed(pool, ["a"], model=ModelKey(name))) == expected(["a"])
            assert sum(model.pid is not None for model in pool.snapshot().models) == 1


async def test_a_model_that_fits_nowhere_says_so(tmp_path):
    async with fake_pool(tmp_path, budget_bytes=1 << 20) as pool:
        with pytest.raises(errors.Misconfigured, match="MiB"):
            await embed(pool, ["a"])


async def test_an_unknown_model_lists_those_that_there_are(tmp_path):
    async with fake_pool(tmp_path) as pool:
        with pytest.raises(errors.Misconfigured, match="'fake'"):
            await embed(pool, ["a"], model=ModelKey("other"))


async def test_a_model_without_weights_is_told_in_the_snapshot_and_found_once_they_are_there(tmp_path):
    model = fake_model(tmp_path)
    os.rename(model.source, model.source + ".away")
    async with fake_pool(tmp_path, model) as pool:
        with pytest.raises(errors.Misconfigured):
            await embed(pool, ["a"])
        assert pool.snapshot().models[0].state == "unusable"
        assert "there is no folder" in pool.snapshot().models[0].reason
        os.rename(model.source + ".away", model.source)
        assert rows(await embed(pool, ["a"])) == expected(["a"])


async def test_a_caller_that_gives_up_does_not_stop_the_load(tmp_path):
    async with fake_pool(tmp_path) as pool:
        with pytest.raises(errors.RetryLater, match=r"within 0\.01 s"):
            await embed(pool, ["a"], deadline_s=0.01)
        await until(lambda: pool.snapshot().models[0].pid is not None)
        assert pool.snapshot().models[0].restarts == 0


async def test_closing_ends_the_workers_and_tells_callers_to_come_back(tmp_path):
    async with fake_pool(tmp_path) as pool:
        await pool.preload(MODEL)
        pid = pool.snapshot().models[0].pid
        call = asyncio.create_task(embed(pool, ["@slow"] * 200))
        await asyncio.sleep(0.2)
        await pool.close()
        assert not is_running(pid)
        with pytest.raises(errors.RetryLater):
            await call
        with pytest.raises(errors.RetryLater):
            await embed(pool, ["late"])


async def test_repr_is_the_status_line(tmp_path):
    async with fake_pool(tmp_path, budget_bytes=8 << 30) as pool:
        assert repr(pool) == "<Pool 0 loaded (0 busy) | 0 waiting | 0.0/8.0 GiB>"


def test_cosine_of_a_vector_with_itself_is_one():
    (row,) = expected(["x"])
    assert cosine(row, row) == pytest.approx(1.0)
