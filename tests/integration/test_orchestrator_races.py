"""Changes that meet work in hand: no file is lost, no text stands under another's bytes, every state is true."""

import asyncio
import dataclasses

import pytest
from orchestrator_world import MINILM, OrchestratorWorld

from msearchd import errors
from msearchd.domain.asset import AssetState, StatFingerprint
from msearchd.domain.job import JobState, Step
from msearchd.orchestrator.runner import Runner
from msearchd.watch.changes import FileGone, FileLeft, FileMoved, TreeMoved


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


async def test_nor_where_the_new_bytes_came_by_a_move_from_a_place_that_is_not_known(world):
    await world.save(b"a.txt", "old words")
    await world.save(b"copy.txt", "old words")
    await world.settle(Step.IDENTIFY)
    stat = world.disk.write(world.path(b"a.txt"), b"new words")
    await world.intake.apply([FileMoved(world.root, b"unknown.txt", world.root, b"a.txt", stat)])
    await world.settle(Step.EXTRACT)
    await world.settle()
    assert (await world.texts(b"copy.txt"), await world.texts(b"a.txt")) == (["old words"], ["new words"])


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


def left_alone(world, name):
    return FileLeft(world.root, name, StatFingerprint(10**9, 10**18, 10**18, 0), "it is a placeholder of a cloud drive")


async def test_a_reset_reads_no_file_that_the_watcher_leaves_alone(world):
    await world.save(b"a.txt", "words")
    await world.settle()
    await world.intake.apply([left_alone(world, b"cloud.txt")])
    await world.reset("index")
    await world.settle()
    row = await world.catalog.asset_by_path(world.path(b"cloud.txt"))
    assert (row.state, row.reason) == (AssetState.SKIPPED, "it is a placeholder of a cloud drive")
    assert world.readers.reads["identify", world.path(b"cloud.txt")] == 0
    assert await world.state(b"a.txt") is AssetState.INDEXED
    assert world.readers.reads["identify", world.path(b"a.txt")] == 2


async def test_a_move_while_equal_bytes_are_in_work_reaches_the_points(world):
    """The moved file's own step waits for the lock of its content; what it read before that is out of date."""
    await world.save(b"one/a.txt", "same words")
    await world.save(b"one/b.txt", "same words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    content = await world.content_of(b"one/b.txt")
    relocating = None

    async def b_moves():
        nonlocal relocating
        stat = world.disk.files[world.path(b"one/b.txt")][1]
        await world.intake.apply([FileMoved(world.root, b"one/b.txt", world.root, b"two/b.txt", stat)])
        [job] = await world.claim(Step.RELOCATE)
        relocating = asyncio.create_task(world.run(job))
        for _ in range(20):
            await asyncio.sleep(0.01)

    world.models.during = b_moves
    [job, *_] = await world.queue.claim(steps=[(Step.EMBED, MINILM)], limit=1, owner="test")
    await world.run(job)
    await relocating
    [space] = (await world.content_of(b"one/a.txt")).live_spaces
    wanted = await world.catalog.dirs_of(content.id)
    assert {payload.dirs for payload in world.points_of(space, content)} == {wanted}


async def test_bytes_that_come_back_while_their_points_are_swept_keep_them(world):
    await world.save(b"a.txt", "words")
    await world.settle()
    content = await world.content_of(b"a.txt")
    [space] = content.live_spaces
    await world.intake.apply([FileGone(world.root, b"a.txt")])
    await world.database.write(lambda c: world.catalog.forget_content_in(c, content.id))

    async def comes_back():
        await world.save(b"b.txt", "words")
        await world.settle()

    world.store.before_delete = comes_back
    assert await world.recovery.finish_sweeps() == 1
    await world.settle()
    assert (await world.content_of(b"b.txt")).live_spaces == {space}
    assert len(world.points_of(space, content)) == 1


async def test_a_folder_that_was_removed_and_added_again_is_read_anew(world):
    """Killed between the two halves of a removal: the folder was out of sight, its files were not yet."""
    await world.save(b"a.txt", "words")
    await world.database.write(lambda c: world.catalog.remove_root_in(c, world.root))
    await world.settle()  # its jobs end: it is in no watched folder
    await world.folders().start()
    await world.database.write(lambda c: world.catalog.add_root_in(c, b"/home/u"))
    assert await world.catalog.files(world.root, b"") == {}


@pytest.mark.parametrize("whole_folder", [True, False])
async def test_a_file_that_moved_before_it_was_read_is_read_as_soon_as_the_move_is_known(world, whole_folder):
    await world.save(b"old/a.txt", "words")
    data, stat = world.disk.files[world.path(b"new/a.txt")] = world.disk.files.pop(world.path(b"old/a.txt"))
    await world.settle()
    assert await world.open_jobs(b"old/a.txt") == [(Step.IDENTIFY, JobState.DELAYED)]
    await world.intake.apply(
        [TreeMoved(world.root, b"old", world.root, b"new")]
        if whole_folder
        else [FileMoved(world.root, b"old/a.txt", world.root, b"new/a.txt", stat)]
    )
    await world.settle()  # no time passes: whoever waits in `sync` waits for ready jobs
    assert await world.state(b"new/a.txt") is AssetState.INDEXED
    assert await world.texts(b"new/a.txt") == [data.decode()]


async def test_an_event_that_cannot_be_told_does_not_end_a_lane(world):
    async def nobody_can_hear(job, error):
        message = "the disk is failing"
        raise errors.RetryLater(message)

    runner = Runner(world.outcomes, {Step.IDENTIFY: world.steps.identify}, tell=nobody_can_hear)
    await world.save(b"a.txt", "words")
    world.disk.files.clear()
    [job] = await world.claim(Step.IDENTIFY)
    await runner.run_one(job)
    assert await world.open_jobs(b"a.txt") == [(Step.IDENTIFY, JobState.DELAYED)]
