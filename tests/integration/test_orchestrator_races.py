"""Changes that meet work in hand: no file is lost, no text stands under another's bytes, every state is true."""

import dataclasses

import pytest
from orchestrator_world import OrchestratorWorld

from msearchd.domain.asset import AssetState
from msearchd.domain.job import JobState, Step
from msearchd.watch.changes import FileGone, FileLeft


@pytest.fixture
async def world(tmp_path):
    world = await OrchestratorWorld(tmp_path).open()
    yield world
    await world.close()


async def test_text_of_new_bytes_is_never_kept_under_the_name_of_the_old(world):
    await world.save(b"a.txt", "old words")
    await world.save(b"copy.txt", "old words")
    await world.settle(Step.IDENTIFY)
    await world.save(b"a.txt", "new words")  # before it was extracted: both steps are owed now
    await world.settle(Step.EXTRACT)
    await world.settle()
    assert await world.texts(b"copy.txt") == ["old words"]
    assert await world.texts(b"a.txt") == ["new words"]
    assert await world.state(b"a.txt") is AssetState.INDEXED


async def test_a_file_left_alone_while_it_is_identified_stays_left_alone(world):
    await world.save(b"a.txt", "grows beyond the limit")
    left = FileLeft(world.root, b"a.txt", dataclasses.replace(world.disk.write(b"x", b""), inode=0), "it is too large")

    async def grows():
        await world.intake.apply([left])

    world.readers.during["identify"] = grows
    await world.settle()
    row = await world.catalog.asset_by_path(world.path(b"a.txt"))
    assert (row.state, row.reason, row.content) == (AssetState.SKIPPED, "it is too large", None)
    assert await world.open_jobs(b"a.txt") == []
    assert await world.catalog.file(world.root, b"a.txt") == left.fingerprint


async def test_a_file_left_alone_while_it_is_extracted_stays_left_alone(world):
    await world.save(b"a.txt", "grows beyond the limit")
    left = FileLeft(world.root, b"a.txt", dataclasses.replace(world.disk.write(b"x", b""), inode=0), "it is too large")

    async def grows():
        await world.intake.apply([left])

    world.readers.during["extract"] = grows
    await world.settle()
    row = await world.catalog.asset_by_path(world.path(b"a.txt"))
    assert (row.state, row.reason, row.content) == (AssetState.SKIPPED, "it is too large", None)


async def test_a_file_that_goes_while_it_is_read_owes_nothing_more(world):
    await world.save(b"a.txt", "words")

    async def goes():
        await world.intake.apply([FileGone(world.root, b"a.txt")])

    world.readers.during["identify"] = goes
    await world.settle(Step.IDENTIFY)
    assert await world.open_jobs(b"a.txt") == []


async def test_a_file_that_goes_and_comes_back_while_it_is_read_is_indexed(world):
    await world.save(b"a.txt", "old words")

    async def goes_and_comes():
        await world.intake.apply([FileGone(world.root, b"a.txt")])
        await world.save(b"a.txt", "new words")

    for step in ("identify", "extract"):
        world.readers.during[step] = goes_and_comes
        await world.settle()
        assert await world.texts(b"a.txt") == ["new words"]
        assert await world.state(b"a.txt") is AssetState.INDEXED
        assert len((await world.content_of(b"a.txt")).live_spaces) == 1
        await world.save(b"a.txt", "old words of another kind")


async def test_a_copy_is_embedded_although_the_file_that_owed_it_went(world):
    await world.save(b"a.txt", "same words")
    await world.save(b"b.txt", "same words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    await world.intake.apply([FileGone(world.root, b"a.txt")])
    await world.settle()
    assert len((await world.content_of(b"b.txt")).live_spaces) == 1


async def test_points_learn_a_folder_that_came_while_they_were_made(world):
    await world.save(b"one/a.txt", "same words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)

    async def copy_is_made():
        await world.save(b"two/b.txt", "same words")
        await world.settle(Step.IDENTIFY)

    world.models.during = copy_is_made
    await world.settle()
    content = await world.content_of(b"two/b.txt")
    [space] = content.live_spaces
    wanted = await world.catalog.dirs_of(content.id)
    assert {payload.dirs for payload in world.points_of(space, content)} == {wanted}
    assert await world.state(b"two/b.txt") is AssetState.INDEXED


async def test_the_state_of_a_file_that_killed_its_worker_too_often_is_told(world):
    await world.save(b"a.txt", "words")
    for _ in range(3):
        assert [job.step for job in await world.claim()] == [Step.IDENTIFY]
        await world.restarted()
    assert await world.open_jobs(b"a.txt") == [(Step.IDENTIFY, JobState.FAILED)]
