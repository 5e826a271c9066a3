"""A model changes: its space is built beside the old one, which answers until then; killed anywhere, nothing is lost."""

import asyncio
import contextlib
import random

import pytest
from orchestrator_world import MINILM, OrchestratorWorld

from msearchd import errors
from msearchd.domain.asset import AssetState
from msearchd.domain.job import JobState, Step
from msearchd.domain.space import ModelKey
from msearchd.orchestrator.model_plan import Policy
from msearchd.store.catalog.space_book import Phase

HOUR_MS = 3_600_000
OLD_KEY = ModelKey("minilm@1")


@pytest.fixture
async def world(tmp_path):
    world = OrchestratorWorld(tmp_path)
    world.policy = Policy(auto_samples=3, keep_ms=HOUR_MS)
    await world.open()
    yield world
    await world.close()


async def indexed(world, count):
    for number in range(count):
        await world.save(b"%d.txt" % number, f"words {number}|more {number}")
    await world.settle()
    return world


async def with_new_weights(world, *, revision="2"):
    world.models.revision = revision
    await world.restarted()
    await world.start()
    world.models.by_model.clear()


async def phases(world):
    return {one.name: one.phase for line in await world.change.look() for one in line.records}


async def question_space(world):
    """As a search does: the model to ask, then the space whose vectors it may be compared with."""
    key = await world.change.question_key("text")
    return key, (await world.spaces.of(key)).name


async def built(world):
    await world.settle()
    await world.change.advance()


async def test_much_work_awaits_a_yes_and_the_old_model_answers_and_indexes(world):
    await indexed(world, 5)
    await with_new_weights(world)
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.WAITING}
    await world.settle()
    assert world.models.by_model == []
    await world.save(b"new.txt", "new words")
    await world.settle()
    assert world.models.by_model == [(OLD_KEY, "new words")]
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    assert (await world.content_of(b"new.txt")).live_spaces == {"minilm-1"}
    [sentence] = world.change.problems()
    assert "10 passages await" in sentence
    assert "msearch model switch minilm" in sentence


async def test_little_work_begins_unasked_and_switches_when_it_is_done(world):
    await indexed(world, 1)
    await with_new_weights(world)
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.BUILDING}
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    await built(world)
    assert await phases(world) == {"minilm-1": Phase.KEPT, "minilm-2": Phase.SERVING}
    assert await question_space(world) == (MINILM, "minilm-2")


async def test_while_it_is_built_new_files_go_into_both_and_a_hit_is_never_lost_by_the_switch(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await world.save(b"new.txt", "new words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    row = await world.catalog.asset_by_path(world.path(b"new.txt"))
    assert {job.target for job in await world.queue.jobs_of(row.id)} == {OLD_KEY, MINILM}
    await world.change.advance()
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    await built(world)
    assert await question_space(world) == (MINILM, "minilm-2")
    for name in (b"0.txt", b"4.txt", b"new.txt"):
        assert "minilm-2" in (await world.content_of(name)).live_spaces
        assert await world.state(name) is AssetState.INDEXED


async def test_a_content_that_failed_for_good_does_not_hold_up_the_switch(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    jobs = await world.queue.claim(steps=[(Step.EMBED, MINILM)], limit=1, owner="test")
    await world.outcomes.not_done(jobs[0], errors.BadAsset("poison"))
    await built(world)
    assert (await phases(world))["minilm-2"] is Phase.SERVING


async def test_a_content_that_is_delayed_holds_it_up(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    jobs = await world.queue.claim(steps=[(Step.EMBED, MINILM)], limit=1, owner="test")
    await world.outcomes.not_done(jobs[0], errors.RetryLater("memory is short", after_s=1000))
    await built(world)
    assert (await phases(world))["minilm-2"] is Phase.BUILDING


async def test_a_roll_back_answers_at_once_and_catches_up(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await built(world)
    await world.save(b"later.txt", "later words")
    await world.settle()
    world.models.by_model.clear()
    row = await world.change.rollback("text")
    assert row.name == "minilm-1"
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    await world.settle()
    assert world.models.by_model == [(OLD_KEY, "later words")]
    # It stays so after a restart, until somebody says otherwise.
    await world.restarted()
    await world.start()
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.DECLINED}
    await world.change.switch("minilm-2")
    await built(world)
    assert (await phases(world))["minilm-2"] is Phase.SERVING


async def test_a_roll_back_while_it_is_built_stops_the_work(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await world.change.rollback("text")
    await world.settle()
    assert world.models.by_model == []
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.DECLINED}
    assert (await world.queue.counts()).open == 0


async def test_without_anything_kept_there_is_no_way_back(world):
    await indexed(world, 1)
    await world.start()
    with pytest.raises(errors.BadRequest, match="no space of another model is kept"):
        await world.change.rollback("text")


async def test_a_kept_space_goes_when_its_time_is_over(world):
    await indexed(world, 1)
    await with_new_weights(world)
    await built(world)
    world.now_ms += HOUR_MS - 1
    await world.change.advance()
    assert set(world.store.points) == {"minilm-1", "minilm-2"}
    world.now_ms += 1
    await world.change.advance()
    assert set(world.store.points) == {"minilm-2"}
    assert await phases(world) == {"minilm-2": Phase.SERVING}


async def test_old_vectors_are_dropped_by_hand_and_those_that_answer_are_not(world):
    await indexed(world, 1)
    await with_new_weights(world)
    await built(world)
    with pytest.raises(errors.BadRequest, match="answers questions"):
        await world.change.drop("minilm-2")
    await world.change.drop("minilm-1")
    assert set(world.store.points) == {"minilm-2"}
    with pytest.raises(errors.NotFound, match="minilm-2"):
        await world.change.drop("minilm-1")


async def test_a_space_that_was_begun_is_dropped_and_can_be_built_again(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await world.settle()
    await world.change.drop("minilm-2")
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.DECLINED}
    assert "minilm-2" not in world.store.points
    await world.change.switch("minilm-2")
    await built(world)
    assert len(world.store.points["minilm-2"]) == 10
    assert (await phases(world))["minilm-2"] is Phase.SERVING


async def test_a_drop_waits_for_what_is_at_work(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    [job, *_] = jobs = await world.queue.claim(steps=[(Step.EMBED, MINILM)], limit=5, owner="test")
    dropping = asyncio.create_task(world.change.drop("minilm-2"))
    await asyncio.sleep(0.05)
    assert not dropping.done()
    for one in jobs:
        await world.run(one)
    assert job.target == MINILM
    await asyncio.wait_for(dropping, 10)
    assert "minilm-2" not in world.store.points


async def test_weights_that_are_gone_give_way_to_the_new_ones_whose_work_awaits_a_yes(world):
    await indexed(world, 5)
    world.models.lost = {"1"}
    await with_new_weights(world)
    assert await phases(world) == {"minilm-1": Phase.KEPT, "minilm-2": Phase.SERVING}
    await world.save(b"new.txt", "new words")
    await world.settle()
    assert world.models.by_model == [(MINILM, "new words")]  # what is new is found by meaning, what was waits
    [sentence] = world.change.problems()
    assert "passages await" in sentence
    await world.change.switch("minilm")
    await world.settle()
    assert len(world.store.points["minilm-2"]) == 11
    assert world.change.problems() == ()
    with pytest.raises(errors.BadRequest, match="not on this machine any more"):
        await world.change.rollback("text")


async def test_a_new_model_without_weights_changes_nothing_but_what_is_said(world):
    await indexed(world, 2)
    world.text_models = (ModelKey("other"),)
    real = world.models.space

    async def missing(model):
        if model == "other":
            raise errors.Misconfigured("no weights of 'other'", key="model:other")
        return await real(model)

    world.models.space = missing
    await world.restarted()
    await world.start()
    assert await question_space(world) == (MINILM, "minilm-1")
    await world.save(b"new.txt", "new words")
    await world.settle()
    assert await world.state(b"new.txt") is AssetState.INDEXED
    assert "no weights of 'other'" in world.change.problems()[0]
    world.models.space = real  # the weights came
    await world.change.advance()
    assert (await phases(world))["other-1"] in {Phase.WAITING, Phase.BUILDING}


async def test_settings_that_change_their_mind_cost_nothing(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await with_new_weights(world, revision="1")
    assert await phases(world) == {"minilm-1": Phase.SERVING, "minilm-2": Phase.KEPT}
    await world.settle()
    assert world.models.by_model == []
    assert (await world.queue.counts()).open == 0


async def test_jobs_of_the_last_life_never_embed_into_a_space_that_nobody_asked_for(world):
    await indexed(world, 5)
    await world.save(b"new.txt", "new words")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    assert await world.open_jobs(b"new.txt") == [(Step.EMBED, JobState.READY)]  # for "minilm", as it was
    await with_new_weights(world)
    await world.settle()
    assert (await world.content_of(b"new.txt")).live_spaces == {"minilm-1"}
    assert world.store.points.get("minilm-2", {}) == {}


async def test_turning_meaning_off_leaves_its_space_to_be_dropped(world):
    await indexed(world, 1)
    world.text_models = ()
    await world.restarted()
    await world.start()
    assert await world.change.question_key("text") is None
    await world.change.drop("minilm-1")
    assert set(world.store.points) == set()


async def test_points_that_a_kept_space_lost_are_owed_on_the_way_back_and_not_before(world):
    await indexed(world, 5)
    await with_new_weights(world)
    await world.change.switch("minilm")
    await built(world)
    world.store.points["minilm-1"].clear()
    await world.restarted()
    await world.start()
    assert (await world.queue.counts()).open == 0
    world.models.by_model.clear()
    await world.change.rollback("text")
    await world.settle()
    assert len(world.store.points["minilm-1"]) == 10
    assert {key for key, _ in world.models.by_model} == {OLD_KEY}


async def test_after_a_reset_the_model_of_the_settings_begins_anew_and_answers(world):
    await indexed(world, 5)
    await with_new_weights(world)
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    await world.reset("index")
    with pytest.raises(errors.NotFound, match="was dropped"):
        await world.spaces.of(OLD_KEY)
    await world.settle()
    assert await phases(world) == {"minilm-2": Phase.SERVING}
    assert await question_space(world) == (MINILM, "minilm-2")
    assert {key for key, _ in world.models.by_model} == {MINILM}
    assert world.change.problems() == ()


async def test_passages_that_are_to_be_cut_otherwise_are_cut_anew_for_both_spaces(world):
    world.models.cut = "c1"
    await world.save(b"a.txt", "one|two;three|four")
    await world.save(b"b.txt", "same")
    await world.settle()
    await world.start()
    world.models.cut, world.readers.separator = "c2", ";"
    await with_new_weights(world)
    assert await world.texts(b"a.txt") == ["one", "two;three", "four"]  # nobody said yes
    await world.change.switch("minilm")
    assert await world.state(b"a.txt") is AssetState.PENDING
    assert await question_space(world) == (OLD_KEY, "minilm-1")
    assert (await world.content_of(b"a.txt")).placed_spaces == {"minilm-1"}  # found until it was read again
    await built(world)
    assert await world.texts(b"a.txt") == ["one|two", "three|four"]
    assert (await phases(world))["minilm-2"] is Phase.SERVING
    assert {text for key, text in world.models.by_model if key == MINILM} == {"one|two", "three|four", "same"}
    for space in ("minilm-1", "minilm-2"):
        content = await world.content_of(b"a.txt")
        assert space in content.live_spaces
        assert len(world.points_of(space, content)) == 2
    assert await world.state(b"a.txt") is AssetState.INDEXED


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("seed", range(12))
async def test_killed_at_any_point_nothing_is_lost_and_a_question_never_meets_vectors_of_another_model(world, seed):
    """Writes fail from the N-th on, as if the process had ended there; then a new life goes on."""
    chance = random.Random(seed)
    await indexed(world, 4)
    revision = 1
    for _ in range(6):
        if chance.random() < 0.4:
            revision = chance.choice([1, 2, 3])
        world.models.revision = str(revision)
        await world.restarted()
        budget = chance.randrange(1, 40)
        real = world.database.write

        async def write(operation, real=real):
            nonlocal budget
            budget -= 1
            if budget < 0:
                raise Killed
            return await real(operation)

        world.database.write = write
        with contextlib.suppress(Killed):
            await world.start()
            for _ in range(4):
                key, space = await question_space(world)
                assert (await world.models.space(key)).fingerprint is not None
                asked = key.partition("@")[2] or world.models.revision
                assert space == f"minilm-{asked}"
                said = chance.random()
                with contextlib.suppress(errors.BadRequest, errors.NotFound):
                    if said < 0.5:
                        await world.change.switch("minilm")
                    elif said < 0.7:
                        await world.change.rollback("text")
                    elif said < 0.8:
                        await world.change.drop(f"minilm-{chance.choice([1, 2, 3])}")
                for _ in range(chance.randrange(4)):
                    for job in await world.queue.claim(
                        steps=[(Step.EMBED, key) for key in world.change.targets()], limit=1, owner="test"
                    ):
                        await world.run(job)
                await world.change.advance()
        world.database.write = real
    await world.restarted()
    await world.start()
    with contextlib.suppress(errors.BadRequest):
        await world.change.switch("minilm")
    await built(world)
    await built(world)
    _, space = await question_space(world)
    for number in range(4):
        content = await world.content_of(b"%d.txt" % number)
        assert space in content.live_spaces
        assert len(world.points_of(space, content)) == 2
    known = {one.name for one in await world.catalog.spaces()}
    assert set(world.store.points) <= known
    for name in known:  # catalog and store agree, whatever happened
        assert await world.catalog.expected_points(name) == len(world.store.points.get(name, {}))
