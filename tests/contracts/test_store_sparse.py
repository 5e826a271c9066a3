"""What a space of sparse vectors promises, over every engine, through the real store process and its wire."""

import math
import os
import struct
import uuid

import pytest
import pytest_asyncio
from rest_shim import RestShim
from store_values import (
    content,
    contents_in,
    folder_in_memory,
    point,
    points_of,
    question,
    space_named,
    sparse_of,
    sparse_space,
    sparse_vectors,
    store_in,
    vector_of,
    vectors,
)

from msearchd import errors
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import SparseVectors
from msearchd.store.vector_store import PointFilter, VectorSearch

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINES = ["edge", "memory", "rest-shim", "server"]


@pytest.fixture(scope="module", params=ENGINES)
def settings(request):
    if request.param == "rest-shim":
        with RestShim() as shim:
            yield {"backend": "server", "url": shim.url, "grpc_port": 0, "tenant": "desk"}
    elif request.param == "server":
        if not (url := os.environ.get("QDRANT_URL")):
            pytest.skip("QDRANT_URL is not set: the contract was NOT checked against a real Qdrant server")
        yield {"backend": "server", "url": url, "tenant": f"test-{uuid.uuid4().hex[:8]}"}
    else:
        yield {"backend": request.param}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(settings, tmp_path_factory):
    with folder_in_memory(tmp_path_factory.mktemp("store")) as folder:
        process = store_in(folder, **settings)
        yield process
        await process.close()


@pytest_asyncio.fixture(loop_scope="module")
async def space(store):
    space = sparse_space(f"test-{uuid.uuid4().hex[:12]}")
    await store.ensure(space)
    yield space
    await store.drop(space.name)


async def put(store, space, numbers, *, segments=1, **more):
    batch, _ = points_of(space, numbers, segments=segments, **more)
    rows = [sparse_of(n, seq) for n in numbers for seq in range(segments)]
    await store.upsert(space.name, batch, sparse_vectors(rows))


def asked(space, number, seq=0, *, limit=10, is_exact=False, **conditions):
    vector = sparse_vectors([sparse_of(number, seq)])
    return VectorSearch(space.name, vector, limit, PointFilter(**conditions), is_exact)


async def test_the_point_with_the_greatest_dot_product_comes_first(store, space):
    await put(store, space, range(150), segments=2)
    [hits] = await store.search([asked(space, 77, 1, limit=5)])
    assert (hits[0].content, hits[0].kind, hits[0].seq) == (content(77), SegmentKind.BODY, 1)
    mine = dict(sparse_of(77, 1))
    scores = {
        (content(n), seq): math.fsum(mine.get(d, 0.0) * w for d, w in sparse_of(n, seq))
        for n in range(150)
        for seq in range(2)
    }
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=1e-3)
    assert hits[0].score == pytest.approx(scores[content(77), 1], abs=1e-4)


async def test_upsert_twice_is_one_point_and_lists_are_whole(store, space):
    for _ in range(2):
        await put(store, space, range(70), segments=2)
    assert await store.count(space.name) == 140
    assert await contents_in(store, space) == {content(number): 2 for number in range(70)}
    health = await store.health()
    assert health.spaces[space.name].points == 140


async def test_a_text_without_an_active_word_is_a_point_that_nothing_finds(store, space):
    batch, _ = points_of(space, range(3))
    await store.upsert(space.name, batch, sparse_vectors([sparse_of(0), [], sparse_of(2)]))
    assert await store.count(space.name) == 3
    assert await contents_in(store, space) == {content(n): 1 for n in range(3)}
    [hits] = await store.search([asked(space, 0)])
    assert content(1) not in {hit.content for hit in hits}
    assert await store.search([VectorSearch(space.name, sparse_vectors([[]]), 5)]) == [[]]


async def test_conditions_hold_and_folders_move_as_in_any_space(store, space):
    await put(store, space, range(8), dirs=(10, 11), type_label="pdf", size=300)
    await store.set_dirs(space.name, content(3), [10, 99])
    for is_exact in (False, True):
        [moved] = await store.search([asked(space, 3, any_dir=(99,), is_exact=is_exact)])
        assert [hit.content for hit in moved] == [content(3)]
        [typed] = await store.search([asked(space, 3, type_labels=("pdf",), min_size=200, is_exact=is_exact)])
        assert len(typed) == 8
        [none] = await store.search([asked(space, 3, type_labels=("markdown",), is_exact=is_exact)])
        assert none == []
    await store.delete_contents(space.name, [content(3)])
    assert content(3) not in await contents_in(store, space)


async def test_dense_and_sparse_questions_are_answered_in_one_call(store, space):
    dense = space_named(f"{space.name}-dense")
    await store.ensure(dense)
    try:
        await put(store, space, range(20))
        await store.upsert(dense.name, *points_of(dense, range(20)))
        answers = await store.search([asked(space, 3, limit=1), question(dense, 4, limit=1), asked(space, 5, limit=1)])
        assert [hits[0].content for hits in answers] == [content(3), content(4), content(5)]
    finally:
        await store.drop(dense.name)


async def test_a_space_of_another_kind_is_refused_and_kept(store, space):
    await put(store, space, range(3))
    with pytest.raises(errors.Misconfigured, match="sparse") as refused:
        await store.ensure(space_named(space.name))
    assert refused.value.hint
    assert await store.count(space.name) == 3


async def test_vectors_of_another_kind_or_shape_store_nothing(store, space):
    batch, dense = points_of(space, range(2))
    with pytest.raises(errors.BadRequest, match="dense"):
        await store.upsert(space.name, batch, dense)
    with pytest.raises(errors.BadRequest, match="dense"):
        await store.search([VectorSearch(space.name, vectors([vector_of(1)]), 3)])
    for wrong in ([(5, 1.0), (3, 1.0)], [(5, 1.0), (5, 2.0)], [(1 << 20, 1.0)]):
        with pytest.raises(errors.BadRequest, match="ascending"):
            await store.upsert(space.name, batch, sparse_vectors([wrong, sparse_of(1)]))
        with pytest.raises(errors.BadRequest, match="ascending"):
            await store.search([VectorSearch(space.name, sparse_vectors([wrong]), 3)])
    with pytest.raises(errors.BadRequest):
        await store.upsert(space.name, batch, sparse_vectors([sparse_of(1)]))
    with pytest.raises(errors.BadRequest):
        await store.search([VectorSearch(space.name, sparse_vectors([sparse_of(1), sparse_of(2)]), 3)])
    assert await store.count(space.name) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
async def test_a_weight_that_is_no_number_fails_its_file_and_stores_nothing(store, space, bad):
    batch, _ = points_of(space, range(3))
    with pytest.raises(errors.BadAsset, match="body 0"):
        await store.upsert(space.name, batch, sparse_vectors([sparse_of(0), [(4, bad)], sparse_of(2)]))
    assert await store.count(space.name) == 0
    with pytest.raises(errors.BadRequest):
        await store.search([VectorSearch(space.name, sparse_vectors([[(4, bad)]]), 3)])


async def test_flush_and_optimize_change_no_answer(store, space):
    await put(store, space, range(300))
    before = await store.search([asked(space, 5, limit=20)])
    await store.flush()
    await store.optimize()
    await store.flush()
    after = await store.search([asked(space, 5, limit=20)])
    assert [hit.content for hit in after[0]] == [hit.content for hit in before[0]]
    assert [hit.score for hit in after[0]] == pytest.approx([hit.score for hit in before[0]], abs=1e-5)
    assert await store.count(space.name) == 300


async def test_a_dropped_space_can_be_made_anew_with_vectors_of_another_kind(store, space):
    await put(store, space, range(5))
    await store.drop(space.name)
    assert await store.count(space.name) == 0
    dense = space_named(space.name)
    await store.ensure(dense)
    await store.upsert(dense.name, *points_of(dense, range(2)))
    assert await store.count(dense.name) == 2


@pytest.mark.parametrize("settings", ["edge"], indirect=True)
async def test_a_restarted_embedded_store_finds_the_same_optimized_or_not(settings, tmp_path):
    space = sparse_space("stays")
    with folder_in_memory(tmp_path) as folder:
        first = store_in(folder, quantize_above=1000)
        await first.ensure(space)
        for start in range(0, 1200, 300):
            await put(first, space, range(start, start + 300))
        before = await first.search([asked(space, 42, limit=10)])
        await first.optimize()
        await first.close()
        again = store_in(folder, quantize_above=1000)
        try:
            assert await again.count(space.name) == 1200  # from its files, before anybody ensures it
            after = await again.search([asked(space, 42, limit=10)])
            assert [hit.content for hit in after[0]] == [hit.content for hit in before[0]]
            assert [hit.score for hit in after[0]] == pytest.approx([hit.score for hit in before[0]], abs=1e-4)
            await again.ensure(space)
            await put(again, space, range(1200, 1210))
            assert await again.count(space.name) == 1210
        finally:
            await again.close()


async def test_a_point_of_many_entries_survives_the_wire_whole(store, space):
    row = [(dimension, 1.0 + dimension / 1000) for dimension in range(0, 1000, 2)]
    await store.upsert(space.name, [point(space, 1)], sparse_vectors([row]))
    vector = SparseVectors(struct.pack("<If", 998, 1.0), 1, 1000, (1,))
    [hits] = await store.search([VectorSearch(space.name, vector, 1)])
    assert hits[0].score == pytest.approx(1.998, abs=1e-4)
