"""A Qdrant server that fails: calls are repeated, errors say what to do, machines never see each other's points."""

import asyncio
import socket
import time

import pytest
from rest_shim import RestShim
from store_values import content, contents_in, points_of, question, space_named, store_in

from msearchd import errors

SPACE = space_named("text-model-8")


@pytest.fixture
def shim():
    with RestShim() as running:
        yield running


@pytest.fixture
async def store(shim, tmp_path):
    process = store_in(tmp_path, backend="server", url=shim.url, grpc_port=0, tenant="desk", timeout_s=5)
    yield process
    await process.close()


async def test_a_server_that_is_busy_for_a_moment_costs_only_time(shim, store):
    await store.ensure(SPACE)
    shim.faults.path, shim.faults.refuse = "/points", 2
    await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
    assert shim.faults.refuse == 0
    assert await store.count(SPACE.name) == 10


async def test_a_connection_that_drops_after_the_write_doubles_nothing(shim, store):
    await store.ensure(SPACE)
    shim.faults.path, shim.faults.drop = "/points", 1
    await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
    assert shim.faults.drop == 0
    assert await contents_in(store, SPACE) == {content(n): 1 for n in range(10)}


async def test_a_server_that_stays_down_delays_and_says_what_to_do(shim, store):
    await store.ensure(SPACE)
    shim.faults.refuse = 1000
    with pytest.raises(errors.RetryLater) as delayed:
        await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
    assert delayed.value.after_s > 0
    assert shim.url in str(delayed.value)
    assert delayed.value.hint
    health = await store.health()
    assert not health.is_ok
    assert shim.url in health.reason
    shim.faults.refuse = 0
    await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
    assert await store.count(SPACE.name) == 10
    assert (await store.health()).is_ok


async def test_nobody_listening_is_told_as_such(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    store = store_in(tmp_path, backend="server", url=url, grpc_port=0, timeout_s=5)
    try:
        with pytest.raises(errors.RetryLater, match=url):
            await store.ensure(SPACE)
        assert not (await store.health()).is_ok
    finally:
        await store.close()


async def test_a_search_does_not_wait_behind_a_write_that_is_being_retried(shim, store):
    await store.ensure(SPACE)
    await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
    shim.faults.path, shim.faults.refuse = "/payload", 3
    writing = asyncio.create_task(store.set_dirs(SPACE.name, content(1), [7]))
    while shim.faults.refuse == 3:
        await asyncio.sleep(0.005)
    started = time.monotonic()
    [hits] = await store.search([question(SPACE, 3, limit=1)])
    assert hits[0].content == content(3)
    assert not writing.done()
    assert time.monotonic() - started < 0.5
    await writing


async def test_a_wrong_key_blocks_with_the_setting_to_correct(tmp_path):
    with RestShim(api_key="secret") as shim:
        store = store_in(tmp_path, backend="server", url=shim.url, grpc_port=0)
        try:
            with pytest.raises(errors.Misconfigured) as refused:
                await store.ensure(SPACE)
            assert refused.value.key == "store.url"
            assert "api_key_file" in refused.value.hint
        finally:
            await store.close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_the_key_is_read_from_its_file(tmp_path):
    key = tmp_path / "key"
    key.write_text("secret\n")
    with RestShim(api_key="secret") as shim:
        store = store_in(tmp_path, backend="server", url=shim.url, grpc_port=0, api_key_file=str(key))
        try:
            await store.ensure(SPACE)
            assert await store.count(SPACE.name) == 0
        finally:
            await store.close()


async def test_a_key_file_that_is_not_there_is_named(shim, tmp_path):
    store = store_in(tmp_path, backend="server", url=shim.url, grpc_port=0, api_key_file=str(tmp_path / "nothing"))
    try:
        with pytest.raises(errors.Misconfigured) as refused:
            await store.ensure(SPACE)
        assert refused.value.key == "store.api_key_file"
    finally:
        await store.close()


async def test_a_grpc_port_that_does_not_answer_leaves_the_work_to_http(shim, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = store_in(tmp_path, backend="server", url=shim.url, grpc_port=port, tenant="desk", timeout_s=5)
    try:
        await store.ensure(SPACE)
        await store.upsert(SPACE.name, *points_of(SPACE, range(10)))
        assert await store.count(SPACE.name) == 10
        assert shim.seen["PUT /collections/text-model-8/points"] == 1
    finally:
        await store.close()


async def test_two_machines_with_the_same_files_never_touch_each_others_points(shim, store, tmp_path):
    other = store_in(tmp_path / "other", backend="server", url=shim.url, grpc_port=0, tenant="laptop")
    try:
        for machine, folder in ((store, 1), (other, 2)):
            await machine.ensure(SPACE)
            await machine.upsert(SPACE.name, *points_of(SPACE, range(10), dirs=(folder,)))
        await store.set_dirs(SPACE.name, content(3), [99])
        await store.delete_contents(SPACE.name, [content(4)])
        assert await store.count(SPACE.name) == 9
        assert await other.count(SPACE.name) == 10
        [hits] = await other.search([question(SPACE, 4, any_dir=(2,))])
        assert len(hits) == 10
        assert (await other.search([question(SPACE, 3, any_dir=(99,))])) == [[]]
        await store.drop(SPACE.name)
        assert await store.count(SPACE.name) == 0
        assert await other.count(SPACE.name) == 10
        await other.drop(SPACE.name)
        assert shim.answer("GET", "/aliases", {}).aliases == []
    finally:
        await other.close()


async def test_a_collection_that_somebody_removed_is_made_again_and_told(shim, store):
    await store.ensure(SPACE)
    await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
    shim.answer("DELETE", "/collections/text-model-8_g1", {})
    await store.upsert(SPACE.name, *points_of(SPACE, range(7)))
    assert await store.count(SPACE.name) == 7
    assert [told.space for told in store.damages()] == [SPACE.name]
    shim.answer("DELETE", "/collections/text-model-8_g1", {})
    assert await store.search([question(SPACE, 1)]) == [[]]
    assert [told.space for told in store.damages()] == [SPACE.name]


async def test_a_space_that_was_made_by_halves_is_finished(shim, store):
    shim.faults.path, shim.faults.status, shim.faults.refuse = "/collections/aliases", 400, 1
    with pytest.raises(errors.MsearchError):
        await store.ensure(SPACE)
    await store.ensure(SPACE)
    await store.upsert(SPACE.name, *points_of(SPACE, range(5)))
    assert await store.count(SPACE.name) == 5
