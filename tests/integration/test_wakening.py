"""What was missing when jobs blocked is installed while the daemon runs: they go on, by themselves."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.aio.sqlite import Database
from msearchd.composition.tools import looks
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Owed, Step
from msearchd.inference import roster
from msearchd.jobs.queue import JobQueue
from msearchd.orchestrator.wakening import Wakener, wakes
from msearchd.settings.model import QueueSettings

EXTRACT = [(Step.EXTRACT, None)]


@pytest.fixture
async def queue(tmp_path):
    database = await Database.open(tmp_path / "msearchd.db")
    queue = JobQueue(database, QueueSettings(), now_ms=lambda: 1_000_000)
    await queue.open()
    yield queue
    await queue.close()
    await database.close()


async def block(queue, cause):
    (job,) = await queue.claim(steps=EXTRACT, limit=1, owner="test")
    await queue.block(job, cause=cause, reason="not installed")


async def counts(queue):
    now = await queue.counts()
    return now.ready, now.blocked


async def test_ffmpeg_that_is_installed_later_wakes_the_sounds_that_wait_for_it(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    wakener = Wakener(queue, looks(tmp_path))
    await queue.enqueue([Owed(AssetId(1), Step.EXTRACT)])
    await block(queue, "engine:ffmpeg")
    await wakener.look()
    assert await counts(queue) == (0, 1)
    for name in ("ffmpeg", "ffprobe"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        os.chmod(tmp_path / name, 0o755)
    await wakener.look()
    assert await counts(queue) == (1, 0)


async def test_what_is_there_and_does_not_work_is_tried_ever_more_rarely(queue):
    clock = [0.0]
    wakener = Wakener(queue, {"engine:x": lambda: True}, now_s=lambda: clock[0])
    await queue.enqueue([Owed(AssetId(1), Step.EXTRACT)])
    woken = []
    for minute in range(0, 24 * 60, 5):
        clock[0] = minute * 60.0
        if (await counts(queue))[0]:
            await block(queue, "engine:x")
        await wakener.look()
        if (await counts(queue))[0]:
            woken.append(minute)
    assert len(woken) <= 10
    assert woken[:3] == [0, 5, 15]


async def test_causes_that_nobody_can_look_for_are_left_to_whom_they_belong(queue, tmp_path):
    await queue.enqueue([Owed(AssetId(1), Step.EXTRACT)])
    await block(queue, "root:1")
    await Wakener(queue, looks(tmp_path)).look()
    assert await counts(queue) == (0, 1)


def test_each_engine_that_can_be_missing_has_a_look_that_answers(tmp_path):
    found = looks(tmp_path)
    assert {f"engine:{name}" for name, row in roster.ENGINES.items() if row.package} <= set(found)
    assert all(look() in {True, False} for look in found.values())


@given(st.lists(st.tuples(st.booleans(), st.floats(0.1, 1000)), max_size=60))
def test_whoever_comes_back_after_it_was_gone_is_woken_at_once(steps):
    tried, now_s, was_there = None, 0.0, False
    for is_there, passed_s in steps:
        now_s += passed_s
        should_wake, tried = wakes(tried, is_there=is_there, now_s=now_s)
        assert not should_wake or is_there
        assert should_wake or not is_there or was_there
        was_there = is_there
