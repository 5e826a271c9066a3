"""The dispatcher, a real queue, and models of which only one fits: whose jobs run, and when."""

import asyncio
import contextlib
import itertools
import random
import time

from msearchd.aio.sqlite import Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Owed, Step
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.dispatcher import Dispatcher, Lane
from msearchd.orchestrator.model_turns import ModelTurns
from msearchd.settings.model import QueueSettings


class Memory:
    def __init__(self, *, room=1, turn_s=20.0):
        self.room, self._turn_s = room, turn_s

    def fit_together(self, models):
        return len(models) <= self.room

    def turn_s(self):
        return self._turn_s


@contextlib.asynccontextmanager
async def serving(tmp_path, memory, *, job_s=0.0, targets=("a", "b", "c")):
    """A queue that is served; yields it and the models of the jobs in the order in which they ran."""
    database = await Database.open(tmp_path / "queue.db", is_durable=False)
    queue = JobQueue(database, QueueSettings(), now_ms=lambda: time.time_ns() // 1_000_000)
    await queue.open()
    ran = []

    async def run(jobs):
        ran.extend(job.target for job in jobs)
        await asyncio.sleep(job_s)
        for job in jobs:
            await queue.complete(job)

    lanes = [
        Lane(name=name, steps=((Step.EMBED, name),), run=run, concurrency=2, group=4, claim_ahead=0) for name in targets
    ]
    dispatcher = Dispatcher(queue, lanes, turns=ModelTurns(memory))
    task = asyncio.create_task(dispatcher.run(), name="dispatcher")
    try:
        yield queue, ran
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await dispatcher.drain(deadline_s=1)
        await queue.close()
        await database.close()


def mixed(names, count):
    order = [name for name in names for _ in range(count)]
    random.Random(4).shuffle(order)
    return [Owed(AssetId(number), Step.EMBED, target=name) for number, name in enumerate(order)]


async def test_jobs_of_one_model_are_drained_before_the_next_one_is_loaded(tmp_path):
    async with serving(tmp_path, Memory()) as (queue, ran):
        await queue.enqueue(mixed("abc", 60))
        assert await queue.idle_for(None, deadline_s=20)
    assert sorted(ran) == sorted("abc" * 60)
    assert len(list(itertools.groupby(ran))) == 3


async def test_jobs_of_models_that_fit_together_run_side_by_side(tmp_path):
    async with serving(tmp_path, Memory(room=3), job_s=0.005) as (queue, ran):
        await queue.enqueue(mixed("abc", 60))
        assert await queue.idle_for(None, deadline_s=20)
    assert len(ran) == 180
    assert len(list(itertools.groupby(ran))) > 6


async def test_a_model_whose_jobs_never_end_does_not_starve_the_others(tmp_path):
    async with serving(tmp_path, Memory(turn_s=0.2), job_s=0.01) as (queue, ran):
        await queue.enqueue(mixed("a", 1500))
        while not ran:
            await asyncio.sleep(0.01)
        await queue.enqueue([Owed(AssetId(9000 + number), Step.EMBED, target="b") for number in range(8)])
        async with asyncio.timeout(4):
            while ran.count("b") < 8:
                await asyncio.sleep(0.01)
        assert ran.count("a") < 1500


async def test_a_model_that_comes_back_after_a_pause_gets_its_turn_again(tmp_path):
    async with serving(tmp_path, Memory()) as (queue, ran):
        for number, name in enumerate("abacab"):
            await queue.enqueue([Owed(AssetId(number), Step.EMBED, target=name)])
            assert await queue.idle_for(None, deadline_s=5)
    assert "".join(ran) == "abacab"
