"""The embedded engine in trouble: full disk, damaged files, hangs, a second daemon, loss of its files."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from store_values import (
    content,
    contents_in,
    folder_in_memory,
    is_running,
    points_of,
    question,
    space_named,
    store_in,
    vector_of,
    vectors,
)

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.settings.model import StoreSettings
from msearchd.store.client import StoreProcess

SPACE = space_named("text-model-8")
COUNT = 2500
WIDE = space_named("text-model-384", dim=384)


@contextlib.asynccontextmanager
async def opened(folder, **settings):
    store = store_in(folder, **settings)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def tmp_path(tmp_path):
    with folder_in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store that was left cleanly, with quantized and fresh segments."""
    with folder_in_memory(tmp_path_factory.mktemp("template")) as folder:
        asyncio.run(_fill(folder))
        yield folder


async def _fill(folder):
    async with opened(folder, quantize_above=1000) as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(COUNT)))
        await store.optimize()


def filled(template, folder):
    """A copy of the template; its space's folder."""
    shutil.rmtree(folder / "vectors" / "spaces", ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", f"{template}/.", str(folder)], check=True)
    return folder / "vectors" / "spaces" / SPACE.name


# -- damage ---------------------------------------------------------------------------------------------------------------


def lose_a_segment(space_folder):
    for segment in sorted((space_folder / "shard" / "segments").iterdir()):
        (segment / "version.info").unlink()  # the engine then drops the segment and says nothing
        return


def zero_a_description(space_folder):
    for path in (space_folder / "shard" / "segments").glob("*/segment.json"):
        path.write_bytes(bytes(path.stat().st_size))


def zero_the_configuration(space_folder):
    path = space_folder / "shard" / "edge_config.json"
    path.write_bytes(bytes(path.stat().st_size))


def lose_what_it_is(space_folder):
    (space_folder / "space.json").write_text("{")


def lose_all_segments(space_folder):
    shutil.rmtree(space_folder / "shard" / "segments")


DAMAGES = [lose_a_segment, zero_a_description, zero_the_configuration, lose_what_it_is, lose_all_segments]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_damaged_files_are_noticed_set_aside_and_told(template, tmp_path, damage):
    damage(filled(template, tmp_path))
    async with opened(tmp_path, quantize_above=1000) as store:
        await store.ensure(SPACE)
        [told] = store.damages()
        assert told.space == SPACE.name
        assert "aside" in told.reason
        assert await store.count(SPACE.name) == 0
        await store.upsert(SPACE.name, *points_of(SPACE, range(20)))
        assert await store.count(SPACE.name) == 20
    [aside] = (tmp_path / "vectors" / "aside").iterdir()
    assert (aside / "reason.txt").read_text()
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        assert store.damages() == []
        assert await store.count(SPACE.name) == 20


async def test_damage_is_noticed_by_a_search_too_and_the_search_answers(template, tmp_path):
    lose_a_segment(filled(template, tmp_path))
    async with opened(tmp_path) as store:
        assert await store.search([question(SPACE, 3)]) == [[]]
        told = await asyncio.wait_for(store.next_damage(), 1)
        assert told.space == SPACE.name


async def test_only_the_last_damaged_files_of_a_space_are_kept(template, tmp_path):
    for _ in range(2):
        lose_a_segment(filled(template, tmp_path))
        async with opened(tmp_path) as store:
            await store.ensure(SPACE)
            assert len(store.damages()) == 1
    assert len(list((tmp_path / "vectors" / "aside").iterdir())) == 1


async def test_a_load_that_hangs_ends_by_its_deadline(template, tmp_path):
    folder = filled(template, tmp_path)
    # A flipped byte can make the engine's load endless; a pipe in place of a file hangs it the same way, surely.
    [config] = folder.glob("shard/edge_config.json")
    config.unlink()
    os.mkfifo(config)
    store = StoreProcess(
        StoreSettings(backend="edge", min_free_mb=0), tmp_path, Limits(), load_deadline_s=lambda _: 1.0
    )
    try:
        started = time.monotonic()
        await store.ensure(SPACE)
        assert time.monotonic() - started < 20
        [told] = store.damages()
        assert "more than 1 s" in told.reason
        assert await store.count(SPACE.name) == 0
    finally:
        await store.close()


@pytest.mark.parametrize("file", ["id_tracker.mappings", "id_tracker.versions", "id_tracker.deleted"])
async def test_flipped_bytes_in_the_id_tracker_never_hang_or_kill_the_store(template, tmp_path, file):
    folder = filled(template, tmp_path)
    for path in folder.glob(f"shard/segments/*/{file}"):
        data = bytearray(path.read_bytes())
        for place in range(0, len(data), max(1, len(data) // 50)):
            data[place] ^= 0xFF
        path.write_bytes(data)
    store = StoreProcess(
        StoreSettings(backend="edge", min_free_mb=0), tmp_path, Limits(), load_deadline_s=lambda _: 3.0
    )
    try:
        for _ in range(4):  # a crash at load is tried again before the files are blamed
            try:
                await store.ensure(SPACE)
                break
            except errors.RetryLater as delayed:
                await asyncio.sleep(delayed.after_s)
        await store.upsert(SPACE.name, *points_of(SPACE, range(3000, 3010)))
        count = await store.count(SPACE.name)
        assert count == COUNT + 10 or store.damages(), "points were lost without a word"
    finally:
        await store.close()


async def test_files_that_vanish_under_a_restart_are_told(template, tmp_path):
    folder = filled(template, tmp_path)
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        os.kill(store.pid, signal.SIGKILL)
        shutil.rmtree(folder)
        assert await store.count(SPACE.name) == 0
        [told] = store.damages()
        assert "gone" in told.reason


@pytest.mark.parametrize("removed", ["one space", "all of them"])
async def test_files_removed_under_a_running_store_are_told_and_made_again(template, tmp_path, removed):
    folder = filled(template, tmp_path)
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        shutil.rmtree(folder if removed == "one space" else tmp_path / "vectors")
        await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
        [told] = store.damages()
        assert told.space == SPACE.name
        assert await store.count(SPACE.name) == 5
        pid = store.pid
        await store.flush()
        assert store.pid == pid


async def test_a_data_folder_that_the_store_makes_is_private(tmp_path):
    async with opened(tmp_path / "data") as store:
        await store.ensure(SPACE)
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


async def test_a_data_folder_that_is_gone_only_delays(template, tmp_path):
    (tmp_path / "data").mkdir()
    filled(template, tmp_path / "data")
    async with opened(tmp_path / "data") as store:
        await store.ensure(SPACE)
        (tmp_path / "data").rename(tmp_path / "away")
        with pytest.raises(errors.RetryLater, match="No such file"):
            await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
        assert not (tmp_path / "data").exists()
        (tmp_path / "away").rename(tmp_path / "data")
        await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
        assert await store.count(SPACE.name) >= COUNT


async def test_the_memory_engine_says_that_it_forgot(tmp_path):
    async with opened(tmp_path, backend="memory") as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
        os.kill(store.pid, signal.SIGKILL)
        assert await store.count(SPACE.name) == 0
        assert [told.space for told in store.damages()] == [SPACE.name]


async def test_a_clean_end_and_a_killed_one_are_told_apart(template, tmp_path):
    folder = filled(template, tmp_path)
    assert json.loads((folder / "clean.json").read_text()) == {"points": COUNT}
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(3000, 3010)))
        assert not (folder / "clean.json").exists()
        await store.flush()
        assert json.loads((folder / "clean.json").read_text()) == {"points": COUNT + 10}
        await store.delete_contents(SPACE.name, [content(3)])
        os.kill(store.pid, signal.SIGKILL)
        assert await store.count(SPACE.name) == COUNT + 9
        assert store.damages() == []


# -- hangs, restarts, owners --------------------------------------------------------------------------------------------------


async def test_a_process_that_hangs_in_a_call_is_replaced(tmp_path):
    async with opened(tmp_path, timeout_s=1) as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
        hung = store.pid
        os.kill(hung, signal.SIGSTOP)
        with pytest.raises(errors.RetryLater):
            await store.count(SPACE.name)
        assert await store.count(SPACE.name) == 10
        assert not is_running(hung)
        assert (await store.health()).restarts == 1
        assert store.damages() == []


async def test_health_of_a_busy_process_is_its_last_one(tmp_path):
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
        assert (await store.health()).spaces[SPACE.name].points == 10
        os.kill(store.pid, signal.SIGSTOP)
        busy = await store.health()
        os.kill(store.pid, signal.SIGCONT)
        assert (busy.is_ok, busy.reason, busy.spaces[SPACE.name].points) == (True, "busy", 10)


async def test_two_daemons_never_share_a_folder(tmp_path):
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        await first.ensure(SPACE)
        with pytest.raises(errors.RetryLater, match="another process") as refused:
            await second.ensure(SPACE)
        assert "data_dir" in refused.value.hint
        assert not (await second.health()).is_ok


async def test_a_search_overtakes_a_long_write(tmp_path):
    async with opened(tmp_path) as store:
        await store.ensure(WIDE)
        rows = [vector_of(n, dim=384) for n in range(64)]
        batch, _ = points_of(space_named(WIDE.name), range(6400))
        writing = asyncio.create_task(store.upsert(WIDE.name, batch, vectors(rows * 100)))
        await asyncio.sleep(0.1)
        waits = []
        while not writing.done() and len(waits) < 20:
            started = time.monotonic()
            await store.search([question(WIDE, 3, limit=1)])
            waits.append(time.monotonic() - started)
        assert len(waits) >= 3
        await writing
        assert sorted(waits)[len(waits) // 2] < 0.5
        assert await store.count(WIDE.name) == 6400


async def test_a_cancelled_call_leaves_the_store_usable(tmp_path):
    async with opened(tmp_path) as store:
        await store.ensure(SPACE)
        batch = points_of(SPACE, range(3000))
        for _ in range(5):
            writing = asyncio.create_task(store.upsert(SPACE.name, *batch))
            await asyncio.sleep(0.01)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        await store.upsert(SPACE.name, *batch)
        assert await contents_in(store, SPACE) == {content(n): 1 for n in range(3000)}


async def test_large_spaces_are_quantized_while_points_flow_in_and_still_find_the_right_ones(tmp_path):
    async with opened(tmp_path, quantize_above=1000) as store:
        space = space_named("text-model-64", dim=64)
        await store.ensure(space)
        await store.upsert(space.name, *points_of(space, range(3500)))
        health = (await store.health()).spaces[space.name]
        assert health.points == 3500
        assert health.unquantized < 1500
        for number in range(0, 3500, 350):
            exact, quick = await store.search([question(space, number, is_exact=True), question(space, number)])
            assert len({h.content for h in exact} & {h.content for h in quick}) >= 9
            assert quick[0].content == content(number)


# -- full disk ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("cannot mount a small tmpfs (needs root): behaviour on a full disk was NOT checked")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, *, leave_mb):
    free = shutil.disk_usage(disk).free - leave_mb * 1024 * 1024
    with (disk / "filler").open("ab") as file:
        for _ in range(free // 65536):
            file.write(bytes(65536))


async def test_a_disk_that_fills_up_delays_loses_nothing_and_goes_on_once_there_is_room(small_disk):
    async with opened(small_disk) as store:
        await store.ensure(WIDE)
        rows = vectors([vector_of(n, dim=384) for n in range(64)])
        fill(small_disk, leave_mb=90)
        acknowledged, delayed = 0, None
        while delayed is None and acknowledged < 64_000:
            batch, _ = points_of(space_named(WIDE.name), range(acknowledged, acknowledged + 64))
            try:
                await store.upsert(WIDE.name, batch, rows)
                acknowledged += 64
            except errors.RetryLater as error:
                delayed = error
        assert "free" in delayed.hint
        assert delayed.after_s >= 5
        assert acknowledged > 0
        pid = store.pid
        assert await store.count(WIDE.name) == acknowledged
        fill(small_disk, leave_mb=0)  # somebody else takes the rest
        for refused in (store.upsert(WIDE.name, batch, rows), store.delete_contents(WIDE.name, [content(1)])):
            with pytest.raises(errors.RetryLater):
                await refused
        assert len((await store.search([question(WIDE, 1)]))[0]) == 10
        assert (await store.health()).is_ok
        assert (store.pid, (await store.health()).restarts) == (pid, 0)
        (small_disk / "filler").unlink()
        await store.upsert(WIDE.name, batch, rows)
        assert await store.count(WIDE.name) == acknowledged + 64


async def test_a_process_killed_on_a_full_disk_blames_no_files_and_comes_back_with_all_points(small_disk):
    async with opened(small_disk) as store:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(500)))
        fill(small_disk, leave_mb=0)
        os.kill(store.pid, signal.SIGKILL)
        with pytest.raises(errors.RetryLater, match="free"):
            await store.count(SPACE.name)
        assert store.damages() == []
        (small_disk / "filler").unlink()
        assert await store.count(SPACE.name) == 500
        assert store.damages() == []


async def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "vectors").write_text("a file")
    async with opened(tmp_path) as store:
        with pytest.raises(errors.Misconfigured) as refused:
            await store.ensure(SPACE)
        assert refused.value.key == "data_dir"
        assert refused.value.hint
