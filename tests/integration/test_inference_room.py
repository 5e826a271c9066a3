"""Memory, devices and questions: who is loaded, where, and who waits, with workers of the fake engine."""

import asyncio
import time

import pytest
from inference_fakes import embed, expected, fake_model, fake_pool, rows
from test_inference_pool import until

from msearchd import errors
from msearchd.domain.sample import Sound
from msearchd.domain.space import ModelKey
from msearchd.inference.devices import Accelerator, visible_indices
from msearchd.inference.learned import Figures
from msearchd.inference.pool import Lane, Role

ONE, TWO = ModelKey("one"), ModelKey("two")


def two_models(tmp_path, **changes):
    return [fake_model(tmp_path, name, **changes) for name in (ONE, TWO)]


def loaded(pool):
    return {model.name for model in pool.snapshot().models if model.pid is not None}


async def test_a_question_gets_its_model_though_another_one_is_busy_for_long(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path, batch_tokens=64), max_loaded=1) as pool:
        texts = [f"@slow passage {number}" for number in range(1500)]  # 30 s of work
        indexing = asyncio.create_task(embed(pool, texts, model=ONE), name="indexing")
        await until(lambda: pool.snapshot().models[0].passages > 0)
        began = time.monotonic()
        answer = await embed(pool, ["question"], model=TWO, lane=Lane.INTERACTIVE, role=Role.QUERY)
        assert rows(answer) == expected(["question"])
        assert time.monotonic() - began < 3
        assert not indexing.done()
        before = pool.snapshot().models[0].passages
        await until(lambda: pool.snapshot().models[0].passages > before)  # and indexing goes on after it
        indexing.cancel()


async def test_speech_steps_aside_for_a_question_and_goes_on_where_it_was(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path), max_loaded=1) as pool:
        sound = Sound(100, bytes(4 * 100 * 6))
        pieces = pool.transcribe(sound, model=ONE, lane=Lane.BULK, deadline_s=30)
        times = [(await anext(pieces)).t0_ms]
        question = asyncio.create_task(embed(pool, ["question"], model=TWO, lane=Lane.INTERACTIVE))
        await asyncio.sleep(0.2)
        assert not question.done()
        times += [piece.t0_ms async for piece in pieces]
        assert times == [0, 1000, 2000, 3000, 4000, 5000]
        assert rows(await question) == expected(["question"])


async def test_no_more_models_are_loaded_than_the_settings_allow(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path), max_loaded=1) as pool:
        for name in (ONE, TWO, ONE):
            await embed(pool, ["a"], model=name)
            assert loaded(pool) == {name}
        assert not pool.fit_together([ONE, TWO])


async def test_of_models_that_nobody_used_yet_it_is_known_whether_they_fit_before_either_works(tmp_path):
    models = two_models(tmp_path, ballast_mb=300)
    async with fake_pool(tmp_path, *models, max_loaded=1) as pool:
        assert pool.fit_together([ONE])  # one alone has its turn at once
        assert not pool.fit_together([ONE, TWO])
        await until(lambda: not pool._known._looking)
        assert not pool.fit_together([ONE, TWO])
    async with fake_pool(tmp_path, *models) as pool:
        assert not pool.fit_together([ONE, TWO])  # not known yet
        await until(lambda: pool.fit_together([ONE, TWO]))
        assert loaded(pool) == set()


async def test_a_model_that_cannot_be_had_stands_in_nobodys_way(tmp_path):
    models = two_models(tmp_path)
    models[1] = models[1].model_copy(update={"source": str(tmp_path / "nowhere")})
    async with fake_pool(tmp_path, *models, max_loaded=1) as pool:
        await until(lambda: pool.fit_together([ONE, TWO]))


async def test_models_of_one_group_are_never_loaded_together(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path, group="big")) as pool:
        for name in (ONE, TWO):
            await embed(pool, ["a"], model=name)
            assert loaded(pool) == {name}


async def test_many_callers_of_models_that_do_not_fit_together_are_all_served(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path), max_loaded=1) as pool:
        seen = []

        async def ask(number):
            answer = await embed(pool, [f"text {number}"], model=(ONE, TWO)[number % 2])
            seen.append(len(loaded(pool)))
            return rows(answer)

        answers = await asyncio.gather(*(ask(number) for number in range(20)))
    assert answers == [expected([f"text {number}"]) for number in range(20)]
    assert max(seen) == 1


async def test_a_pinned_model_of_the_settings_is_not_unloaded_for_another(tmp_path):
    models = two_models(tmp_path)
    models[0] = models[0].model_copy(update={"pinned": True})
    async with fake_pool(tmp_path, *models, max_loaded=1) as pool:
        await embed(pool, ["a"], model=ONE)
        with pytest.raises(errors.RetryLater):
            await embed(pool, ["a"], model=TWO, deadline_s=1)
        assert loaded(pool) == {ONE}


async def test_each_model_is_kept_as_long_as_its_own_setting_says(tmp_path):
    models = two_models(tmp_path)
    models[0] = models[0].model_copy(update={"idle_unload_s": 0.2})
    async with fake_pool(tmp_path, *models, idle_unload_s=0.0) as pool:
        for name in (ONE, TWO):
            await embed(pool, ["a"], model=name)
        await until(lambda: loaded(pool) == {TWO})


async def test_a_load_that_lacks_memory_unloads_who_is_idle_and_is_tried_once_more(tmp_path):
    models = two_models(tmp_path)
    async with fake_pool(tmp_path, *models) as pool:
        await embed(pool, ["a"], model=ONE)
        with open(f"{models[1].source}/short-of-memory", "w"):
            pass
        assert rows(await embed(pool, ["a"], model=TWO)) == expected(["a"])
        assert loaded(pool) == {TWO}


def test_memory_that_was_measured_grows_at_once_and_shrinks_slowly():
    figures = (
        Figures().seen(host_bytes=100, device_bytes=0, load_s=1.0).seen(host_bytes=200, device_bytes=0, load_s=2.0)
    )
    assert (figures.host_bytes, figures.load_s) == (200, 2.0)
    assert figures.seen(host_bytes=100, device_bytes=0, load_s=1.0).host_bytes == 175


class Gpus:
    """Two devices of 8 GiB, the first half full of somebody else's."""

    def __init__(self):
        self.free = {"cuda:0": 4 << 30, "cuda:1": 8 << 30}

    def __call__(self):
        return [Accelerator(name, name[-1], 8 << 30, free) for name, free in self.free.items()]


async def test_models_go_to_the_gpu_with_most_free_memory_and_their_workers_see_that_one_alone(tmp_path):
    async with fake_pool(tmp_path, *two_models(tmp_path), look=Gpus()) as pool:
        await embed(pool, ["a"], model=ONE)
        assert pool.snapshot().models[0].device == "cuda:1"
        facts = await pool._models[ONE][0].ready()
        assert facts["versions"]["visible"] == "1"


async def test_the_next_model_loads_only_when_the_driver_has_given_the_memory_back(tmp_path):
    gpus = Gpus()
    del gpus.free["cuda:0"]
    async with fake_pool(tmp_path, *two_models(tmp_path), look=gpus, max_loaded=1) as pool:
        await embed(pool, ["a"], model=ONE)
        gpus.free["cuda:1"] -= 600 << 20  # what the first one is thought to hold
        second = asyncio.create_task(embed(pool, ["a"], model=TWO), name="second")
        await until(lambda: not loaded(pool))
        await asyncio.sleep(0.3)
        assert pool.snapshot().models[1].pid is None
        gpus.free["cuda:1"] += 600 << 20
        assert rows(await second) == expected(["a"])


async def test_a_model_that_fits_on_no_gpu_runs_on_the_cpu_unless_a_gpu_was_asked_for(tmp_path):
    gpus = Gpus()
    gpus.free = {"cuda:0": 100 << 20}
    models = two_models(tmp_path)
    models[1] = models[1].model_copy(update={"device": "cuda"})
    async with fake_pool(tmp_path, *models, look=gpus) as pool:
        await embed(pool, ["a"], model=ONE)
        assert pool.snapshot().models[0].device == "cpu"
        with pytest.raises(errors.Misconfigured, match="cuda:0 has"):
            await embed(pool, ["a"], model=TWO)


async def test_a_hot_model_gets_a_copy_on_another_gpu_and_all_its_work_is_done(tmp_path):
    model = fake_model(tmp_path, batch_tokens=256, copies=2)
    async with fake_pool(tmp_path, model, look=Gpus()) as pool:
        await embed(pool, [f"@slow {number}" for number in range(20)])
        texts = [f"@slow passage {number}" for number in range(600)]
        calls = [texts[start : start + 20] for start in range(0, 600, 20)]
        tasks = []
        for call in calls:
            tasks.append(asyncio.create_task(embed(pool, call)))
            await asyncio.sleep(0.03)
        answers = await asyncio.gather(*tasks)
        assert [row for answer in answers for row in rows(answer)] == expected(texts)
        assert pool.snapshot().models[0].copies == 2
        assert pool.snapshot().models[0].device == "cuda:1 cuda:0"
        # A worker dies: what it had is done by the other copy, and its own is not started for that.
        texts = [f"@once={tmp_path}/flag @crash", "a neighbour"]
        assert rows(await embed(pool, texts)) == expected(texts)
        assert pool.snapshot().models[0].copies == 1
        assert pool.snapshot().models[0].restarts == 0


def test_the_devices_that_the_environment_leaves_are_numbered_as_cuda_does():
    assert visible_indices(4, {}) == (0, 1, 2, 3)
    assert visible_indices(4, {"CUDA_VISIBLE_DEVICES": "2,0"}) == (2, 0)
    assert visible_indices(4, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_indices(4, {"CUDA_VISIBLE_DEVICES": "1,9,0"}) == (1,)
