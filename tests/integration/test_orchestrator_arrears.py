"""What a start finds that should be owed and is not: other models, states without jobs, causes that went by themselves."""

import pytest
from orchestrator_world import MINILM, OrchestratorWorld

from msearchd import errors
from msearchd.domain.asset import AssetState, RootState
from msearchd.domain.job import JobState, Step
from msearchd.domain.space import ModelKey
from msearchd.watch.changes import FileGone, RootWent


@pytest.fixture
async def world(tmp_path):
    world = await OrchestratorWorld(tmp_path).open()
    yield world
    await world.close()


async def started_again(world):
    await world.restarted()
    await world.start()
    await world.settle()


async def live_spaces(world, name):
    return (await world.content_of(name)).live_spaces


async def test_other_weights_embed_everything_again(world):
    for name in (b"a.txt", b"b.txt"):
        await world.save(name, f"words of {name}|and more")
    await world.settle()
    world.models.revision = "2"
    await started_again(world)
    for name in (b"a.txt", b"b.txt"):
        assert await live_spaces(world, name) >= {"minilm-2"}
        assert await world.state(name) is AssetState.INDEXED
    assert len(world.store.points["minilm-2"]) == 4


async def test_another_model_embeds_everything_again_and_forgets_what_the_old_one_owed(world):
    await world.save(b"a.txt", "words")
    await world.settle()
    await world.save(b"b.txt", "other words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    assert await world.open_jobs(b"b.txt") == [(Step.EMBED, JobState.READY)]
    world.text_models = (ModelKey("other"),)
    await started_again(world)
    for name in (b"a.txt", b"b.txt"):
        assert await live_spaces(world, name) >= {"other-1"}
        assert await world.state(name) is AssetState.INDEXED
        assert await world.open_jobs(name) == []


async def test_meaning_turned_off_leaves_nothing_pending(world):
    await world.save(b"a.txt", "words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    world.text_models = ()
    await started_again(world)
    assert await world.state(b"a.txt") is AssetState.INDEXED
    assert await world.open_jobs(b"a.txt") == []


async def test_meaning_turned_on_later_embeds_what_was_known_before(world):
    world.text_models = ()
    await world.restarted()
    await world.save(b"a.txt", "words")
    await world.settle()
    world.text_models = (MINILM,)
    await started_again(world)
    assert await live_spaces(world, b"a.txt") == {"minilm-1"}


async def test_a_start_without_news_owes_nothing(world):
    await world.save(b"a.txt", "words")
    await world.save(b"copy.txt", "words")
    await world.settle()
    embedded = list(world.models.embedded)
    await world.restarted()
    await world.start()
    assert (await world.queue.counts()).open == 0
    assert world.models.embedded == embedded


async def test_a_file_whose_embedding_failed_is_not_tried_again_by_a_start(world):
    await world.save(b"a.txt", "words")
    world.models.error = errors.BadAsset("poison")
    await world.settle()
    assert await world.state(b"a.txt") is AssetState.FAILED
    world.models.error = None
    await started_again(world)
    assert await world.open_jobs(b"a.txt") == [(Step.EMBED, JobState.FAILED)]


async def test_a_file_that_killed_its_worker_too_often_is_told_as_failed(world):
    await world.save(b"a.txt", "words")
    for _ in range(3):
        assert [job.step for job in await world.claim()] == [Step.IDENTIFY]
        await world.restarted()
    await started_again(world)
    assert await world.open_jobs(b"a.txt") == [(Step.IDENTIFY, JobState.FAILED)]
    row = await world.catalog.asset_by_path(world.path(b"a.txt"))
    assert (row.state, row.reason) == (AssetState.FAILED, "killed its worker 3 times")


async def test_a_file_that_is_pending_without_a_job_is_identified_again(world):
    asset = await world.save(b"a.txt", "words")
    await world.database.write(lambda c: world.queue.drop_in(c, asset))
    await started_again(world)
    assert await world.state(b"a.txt") is AssetState.INDEXED
    assert await world.texts(b"a.txt") == ["words"]


async def test_what_was_missing_in_the_last_life_is_tried_again(world):
    await world.save(b"a.txt", "words")
    world.readers.errors[world.path(b"a.txt")] = errors.Misconfigured("no parser", key="engine:documents")
    await world.settle()
    assert await world.state(b"a.txt") is AssetState.BLOCKED
    world.readers.errors.clear()
    await started_again(world)
    assert await world.state(b"a.txt") is AssetState.INDEXED


async def test_files_of_an_offline_folder_wait_on_and_those_of_one_that_is_back_do_not(world):
    await world.save(b"a.txt", "words")
    await world.intake.apply([RootWent(world.root, RootState.OFFLINE, "unplugged")])
    await world.settle()
    assert await world.state(b"a.txt") is AssetState.BLOCKED
    await started_again(world)
    assert await world.open_jobs(b"a.txt") == [(Step.IDENTIFY, JobState.BLOCKED)]
    # Killed between the news that it is back and the wake.
    await world.database.write(lambda c: world.catalog.set_root_state_in(c, world.root, RootState.ONLINE))
    await started_again(world)
    assert await world.state(b"a.txt") is AssetState.INDEXED


async def test_files_of_a_configured_folder_go_on_where_it_came_back_while_the_daemon_was_down(world):
    await world.save(b"a.txt", "words")
    await world.intake.apply([RootWent(world.root, RootState.OFFLINE, "unplugged")])
    await world.settle()
    await world.restarted()
    # As every start does with folders of the settings: it is online, and no news will say so.
    await world.database.write(lambda c: world.catalog.add_root_in(c, b"/home/u"))
    await world.arrears.settle()
    await world.settle()
    assert await world.state(b"a.txt") is AssetState.INDEXED


async def test_a_copy_is_embedded_again_although_the_first_file_went_meanwhile(world):
    await world.save(b"a.txt", "same words")
    await world.save(b"b.txt", "same words")
    await world.settle()
    [space] = await live_spaces(world, b"b.txt")
    world.store.points[space].clear()  # the store lost them
    await world.restarted()
    await world.recovery.at_start()
    await world.intake.apply([FileGone(world.root, b"a.txt")])
    await world.settle()
    content = await world.content_of(b"b.txt")
    assert content.live_spaces == {space}
    assert len(world.points_of(space, content)) == 1


async def test_a_model_that_is_missing_is_told_by_every_file_that_needs_it(world):
    await world.save(b"a.txt", "words")
    await world.settle()
    world.text_models = (ModelKey("other"),)
    world.models.error = errors.Misconfigured("weights are missing", key="model:other")
    await started_again(world)
    row = await world.catalog.asset_by_path(world.path(b"a.txt"))
    assert (row.state, row.reason) == (AssetState.BLOCKED, "weights are missing")
