import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from inference_fakes import MODEL, embed, expected, fake_model, fake_pool, rows

from msearchd import errors
from msearchd.inference.pool import Lane, Role

TEXTS = [f"passage {number} " + "word " * (number % 40) for number in range(60)]


async def test_a_poison_text_fails_alone_and_is_named(tmp_path):
    async with fake_pool(tmp_path) as pool:
        good = asyncio.create_task(embed(pool, TEXTS))
        with pytest.raises(errors.BadAsset, match="passage 1 of 3 cannot be embedded: ValueError: this text is poison"):
            await embed(pool, ["fine", "bad @poison", "fine too"])
        assert rows(await good) == expected(TEXTS)
        assert pool.snapshot().models[0].restarts == 0


@pytest.mark.parametrize("lane", list(Lane))
async def test_a_text_that_cannot_be_tokenised_fails_alone(tmp_path, lane):
    async with fake_pool(tmp_path) as pool:
        good = asyncio.create_task(embed(pool, TEXTS))
        with pytest.raises(errors.BadAsset, match="passage 1 of 2"):
            await embed(pool, ["fine", "bad @unreadable"], lane=lane)
        assert rows(await good) == expected(TEXTS)


async def test_out_of_memory_halves_the_batch_until_it_fits(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, batch_tokens=8192)) as pool:  # the fake engine fits 1024
        assert rows(await embed(pool, TEXTS * 5)) == expected(TEXTS * 5)
        assert pool.snapshot().models[0].restarts == 0


async def test_a_text_that_fits_in_no_memory_is_for_later_and_its_neighbours_are_not(tmp_path):
    async with fake_pool(tmp_path) as pool:
        good = asyncio.create_task(embed(pool, TEXTS))
        with pytest.raises(errors.RetryLater, match="not enough memory"):
            await embed(pool, ["huge @big"])
        assert rows(await good) == expected(TEXTS)


@pytest.mark.parametrize("end", ["@crash", "@killed"])
async def test_a_worker_that_dies_at_work_costs_nobody_a_failure(tmp_path, end):
    texts = [*TEXTS, f"@once={tmp_path}/died {end}"]
    async with fake_pool(tmp_path) as pool:
        assert rows(await embed(pool, texts)) == expected(texts)
        assert pool.snapshot().models[0].restarts == 1


@pytest.mark.parametrize("end", ["@crash", "@killed"])
async def test_a_text_that_always_kills_its_worker_is_found_and_fails_alone(tmp_path, end):
    async with fake_pool(tmp_path) as pool:
        others = [asyncio.create_task(embed(pool, TEXTS[start : start + 10])) for start in range(0, 60, 10)]
        with pytest.raises(errors.BadAsset, match=r"passage 2 of 3 .* ended its model's process twice"):
            await embed(pool, ["one", "two", f"three {end}"], deadline_s=60)
        for start, other in zip(range(0, 60, 10), others, strict=True):
            assert rows(await other) == expected(TEXTS[start : start + 10])


async def test_a_worker_killed_from_outside_is_replaced_unnoticed(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, batch_tokens=64)) as pool:
        await pool.preload(MODEL)
        texts = [f"@slow passage {number}" for number in range(60)]
        call = asyncio.create_task(embed(pool, texts))
        await asyncio.sleep(0.2)
        os.kill(pool.snapshot().models[0].pid, signal.SIGKILL)
        assert rows(await call) == expected(texts)


async def test_a_question_survives_the_crash_of_a_bulk_neighbour(tmp_path):
    async with fake_pool(tmp_path) as pool:
        await pool.preload(MODEL)
        bulk = asyncio.create_task(embed(pool, [f"@slow @once={tmp_path}/died @crash"]))
        await asyncio.sleep(0)
        answer = await embed(pool, ["question"], lane=Lane.INTERACTIVE, role=Role.QUERY)
        assert rows(answer) == expected(["question"])
        await bulk


async def test_a_hanging_batch_is_over_after_its_time_limit_and_the_rest_goes_on(tmp_path):
    texts = [*TEXTS, f"@once={tmp_path}/hung @hang"]
    async with fake_pool(tmp_path, request_timeout_s=0.7) as pool:
        began = time.monotonic()
        assert rows(await embed(pool, texts)) == expected(texts)
        assert time.monotonic() - began < 8
        assert pool.snapshot().models[0].restarts == 1


async def test_a_text_that_always_hangs_is_given_up(tmp_path):
    async with fake_pool(tmp_path, request_timeout_s=0.5) as pool:
        with pytest.raises(errors.BadAsset, match="twice"):
            await embed(pool, ["@hang"], deadline_s=30)
        assert rows(await embed(pool, ["next"])) == expected(["next"])


async def test_a_hanging_question_ends_at_its_deadline_and_the_worker_is_replaced(tmp_path):
    async with fake_pool(tmp_path, request_timeout_s=0.5) as pool:
        await pool.preload(MODEL)
        with pytest.raises(errors.RetryLater):
            await embed(pool, ["@hang"], lane=Lane.INTERACTIVE, deadline_s=0.3)
        assert rows(await embed(pool, ["next"], deadline_s=10)) == expected(["next"])


async def test_slow_but_steady_work_is_not_taken_for_a_hang(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, batch_tokens=64), request_timeout_s=0.6) as pool:
        texts = [f"@slow {number}" for number in range(100)]  # 2 s in all, 80 ms a batch
        assert rows(await embed(pool, texts)) == expected(texts)
        assert pool.snapshot().models[0].restarts == 0


async def test_a_worker_that_never_comes_up_blames_no_text(tmp_path):
    model = fake_model(tmp_path)
    (Path(model.source) / "refuse-to-load").touch()
    async with fake_pool(tmp_path, model) as pool:
        with pytest.raises(errors.RetryLater, match="while starting"):
            await embed(pool, ["a"])
        (Path(model.source) / "refuse-to-load").unlink()
        async with asyncio.timeout(20):
            while True:
                try:
                    vectors = await embed(pool, ["a"])
                    break
                except errors.RetryLater as error:
                    await asyncio.sleep(min(error.after_s, 0.5))
        assert rows(vectors) == expected(["a"])


async def test_an_interpreter_that_is_not_there_says_so(tmp_path):
    async with fake_pool(tmp_path, fake_model(tmp_path, python="/no/such/python")) as pool:
        with pytest.raises(errors.Misconfigured) as caught:
            await embed(pool, ["a"])
        assert "/no/such/python" in str(caught.value)
        assert caught.value.hint


_DAEMON = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from inference_fakes import MODEL, embed, fake_pool
async def main():
    async with fake_pool(Path(sys.argv[2])) as pool:
        await pool.preload(MODEL)
        print(pool.snapshot().models[0].pid, flush=True)
        await embed(pool, ["@hang"])
asyncio.run(main())
"""


def test_a_worker_dies_with_its_daemon_even_when_it_hangs(tmp_path):
    command = [sys.executable, "-c", _DAEMON, str(Path(__file__).parents[1]), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        worker = int(next(line for line in daemon.stdout if line.strip().isdigit()))
        time.sleep(0.3)
        daemon.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]
