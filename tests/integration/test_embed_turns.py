"""The embed step takes turns: a request's worth of passages, the rest of the group goes back to the queue."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from types import SimpleNamespace

import pytest

from msearchd.domain.asset import AssetId
from msearchd.domain.job import Job, JobId, Priority, Step
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName
from msearchd.orchestrator.document_vectors import DocumentVectors
from msearchd.orchestrator.embed import EmbedStep
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.runner import Runner
from msearchd.orchestrator.samples import PER_REQUEST

SPACE = Space(SpaceName("m-1"), ModelKey("m"), "f", 2)


class World:
    """Catalog, outcomes, pool, store and spaces of some files, each with so many passages."""

    def __init__(self, *passages: int) -> None:
        self.passages = passages
        self.done: list[int] = []
        self.ready_again: list[int] = []
        self.read: list[int] = []
        self.gate: asyncio.Event | None = None
        self.step = EmbedStep(
            catalog=self,
            outcomes=self,
            vectors=DocumentVectors(self),
            store=self,
            spaces=self,
            content_locks=KeyedLocks(),
            deadline_s=60.0,
        )  # type: ignore[arg-type]

    def jobs(self, *priorities: Priority) -> list[Job]:
        wanted = priorities or (Priority.BACKFILL,) * len(self.passages)
        return [Job(JobId(n), AssetId(n), Step.EMBED, "m", priority, 1, 1) for n, priority in enumerate(wanted)]

    # catalog
    async def content_of(self, asset):
        return await self.content(asset)

    async def content(self, number):
        return SimpleNamespace(
            id=number,
            uuid="u",
            content_hash=hashlib.blake2b(str(number).encode(), digest_size=32).digest(),
            live_spaces=(),
            placed_spaces=(),
            type_label="txt",
            modality=SimpleNamespace(value="text"),
            size=1,
        )

    async def dirs_of(self, _number):
        return ()

    async def segments(self, number):
        self.read.append(number)
        return [Segment(SegmentKind.BODY, seq, "words") for seq in range(self.passages[number])]

    def intend_in(self, *_args):
        pass

    live_in = intend_in

    # outcomes
    async def commit(self, write):
        write(None)

    def done_in(self, _c, job):
        self.done.append(job.asset)

    async def given_back(self, jobs):
        self.ready_again += [job.asset for job in jobs]

    # spaces, pool, store
    async def of(self, _model):
        return SPACE

    def note_upserts(self, _count):
        pass

    async def embed(self, texts, **_how):
        if self.gate is not None:
            await self.gate.wait()
        return [texts]

    async def upsert(self, *_args):
        pass


def noted(_jobs):
    return contextlib.nullcontext(lambda _done: None)


async def test_long_files_are_a_turn_each_and_the_rest_of_the_group_is_ready_again():
    world = World(PER_REQUEST["text"], PER_REQUEST["text"], 5)
    await world.step.run(world.jobs(), noted)
    assert world.done == [0]
    assert world.ready_again == [1, 2]
    assert set(world.read) == {0}  # what is given back is not even read


@pytest.mark.looptime(False)
async def test_two_groups_with_the_same_jobs_do_not_wait_for_what_neither_embeds():
    world = World(PER_REQUEST["text"], PER_REQUEST["text"])
    first, second = world.jobs()
    world.gate = asyncio.Event()
    one = asyncio.create_task(world.step.run([first, second], noted))
    async with asyncio.timeout(10):
        while not world.ready_again:
            await asyncio.sleep(0)
        other = asyncio.create_task(world.step.run([second], noted))
        while world.read.count(1) < 2:  # chosen, and read again under its lock
            await asyncio.sleep(0)
    world.gate.set()
    await asyncio.gather(one, other)
    assert sorted(world.done) == [0, 1]


async def test_short_files_are_one_turn_together():
    world = World(*[3] * 64)
    await world.step.run(world.jobs(), noted)
    assert world.done == list(range(64))
    assert world.ready_again == []


async def test_every_turn_ends_at_least_one_job_however_long_the_file():
    world = World(10 * PER_REQUEST["text"], 1)
    await world.step.run(world.jobs(), noted)
    assert world.done == [0]


async def test_the_back_fill_has_one_turn_of_eight_where_better_jobs_fill_all_others():
    world = World(PER_REQUEST["text"], PER_REQUEST["text"])
    for _ in range(8):
        await world.step.run(world.jobs(Priority.LIVE, Priority.BACKFILL), noted)
    assert world.done.count(1) == 1


@pytest.mark.looptime(False)
async def test_the_status_shows_what_is_embedded_now_and_not_what_waits_in_the_group():
    world = World(PER_REQUEST["text"], 5)
    world.gate = asyncio.Event()
    runner = Runner(world, {}, tell=None)  # type: ignore[arg-type]
    turn = asyncio.create_task(runner.run_group(world.jobs(), world.step.run))
    async with asyncio.timeout(10):
        while not runner.in_work:
            await asyncio.sleep(0)
    assert [(work.asset, work.doing) for work in runner.in_work] == [(0, f"0 of {PER_REQUEST['text']} places")]
    world.gate.set()
    await turn
    assert runner.in_work == ()
