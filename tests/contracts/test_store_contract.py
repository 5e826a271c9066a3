"""What every vector store promises, over every engine, through the real store process and its wire."""

import math
import os
import uuid

import pytest
import pytest_asyncio
from rest_shim import RestShim
from store_values import (
    DIM,
    content,
    contents_in,
    folder_in_memory,
    point,
    points_of,
    question,
    space_named,
    store_in,
    vector_of,
    vectors,
)

from msearchd import errors
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import SpaceName, Vectors
from msearchd.store.backends import BACKENDS
from msearchd.store.vector_store import PointFilter, VectorSearch

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINES = ["edge", "memory", "rest-shim", "server"]


async def test_the_suite_covers_every_registered_engine():
    assert set(BACKENDS) <= set(ENGINES)


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
    space = space_named(f"test-{uuid.uuid4().hex[:12]}")
    await store.ensure(space)
    yield space
    await store.drop(space.name)


async def test_a_new_space_is_empty(store, space):
    assert await store.count(space.name) == 0
    assert await contents_in(store, space) == {}
    assert await store.search([question(space, 1)]) == [[]]
    assert space.name in await store.spaces()


async def test_ensuring_a_space_twice_keeps_its_points(store, space):
    await store.upsert(space.name, *points_of(space, range(3)))
    await store.ensure(space)
    assert await store.count(space.name) == 3


async def test_a_space_of_another_dimension_is_refused_and_kept(store, space):
    await store.upsert(space.name, *points_of(space, range(3)))
    with pytest.raises(errors.Misconfigured) as refused:
        await store.ensure(space_named(space.name, dim=DIM * 2))
    assert "8 dimensions" in str(refused.value)
    assert refused.value.hint
    assert await store.count(space.name) == 3


async def test_the_nearest_point_comes_first_with_its_similarity(store, space):
    await store.upsert(space.name, *points_of(space, range(200), segments=2))
    [hits] = await store.search([question(space, 77, 1, limit=5)])
    assert len(hits) == 5
    assert (hits[0].content, hits[0].kind, hits[0].seq) == (content(77), SegmentKind.BODY, 1)
    assert hits[0].score == pytest.approx(1.0, abs=1e-4)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    mine = vector_of(77, 1)
    for hit in hits:
        other = vector_of(int.from_bytes(hit.content.bytes, "big"), hit.seq)
        assert hit.score == pytest.approx(
            math.sumprod(mine, other)
            if hasattr(math, "sumprod")
            else sum(a * b for a, b in zip(mine, other, strict=True)),
            abs=1e-3,
        )


async def test_upsert_twice_is_one_point(store, space):
    batch = points_of(space, range(70), segments=2)
    await store.upsert(space.name, *batch)
    await store.upsert(space.name, *batch)
    assert await store.count(space.name) == 140
    assert await contents_in(store, space) == {content(number): 2 for number in range(70)}


async def test_no_points_is_no_work(store, space):
    await store.upsert(space.name, [], Vectors(b"", 0, DIM))
    await store.delete_contents(space.name, [])
    assert await store.search([]) == []
    assert await store.count(space.name) == 0


async def test_deleted_contents_are_gone_and_others_stay(store, space):
    await store.upsert(space.name, *points_of(space, range(10), segments=3))
    await store.delete_contents(space.name, [content(2), content(7)])
    assert await contents_in(store, space) == {content(n): 3 for n in range(10) if n not in {2, 7}}
    [hits] = await store.search([question(space, 2, limit=30)])
    assert content(2) not in {hit.content for hit in hits}


async def test_delete_of_unknown_content_is_quiet(store, space):
    await store.upsert(space.name, *points_of(space, range(3)))
    await store.delete_contents(space.name, [content(99)])
    await store.set_dirs(space.name, content(99), [5])
    assert await store.count(space.name) == 3


async def test_an_unknown_space_answers_nothing_but_takes_no_points(store):
    nowhere = space_named("never-made")
    assert await store.search([question(nowhere, 1)]) == [[]]
    assert await store.count(nowhere.name) == 0
    assert await contents_in(store, nowhere) == {}
    await store.delete_contents(nowhere.name, [content(1)])
    await store.set_dirs(nowhere.name, content(1), [1])
    await store.drop(nowhere.name)
    with pytest.raises(errors.NotFound):
        await store.upsert(nowhere.name, *points_of(nowhere, range(2)))
    assert nowhere.name not in await store.spaces()


async def test_moving_a_content_replaces_its_folders_and_nothing_else(store, space):
    batch, rows = points_of(space, range(4), segments=2, dirs=(1, 2), type_label="pdf")
    await store.upsert(space.name, batch, rows)
    await store.set_dirs(space.name, content(3), [1, 9])
    [moved] = await store.search([question(space, 3, any_dir=(9,))])
    assert {(hit.content, hit.seq) for hit in moved} == {(content(3), 0), (content(3), 1)}
    assert moved[0].score == pytest.approx(1.0, abs=1e-4)
    [old] = await store.search([question(space, 3, any_dir=(2,))])
    assert content(3) not in {hit.content for hit in old}
    [typed] = await store.search([question(space, 3, type_labels=("pdf",))])
    assert len(typed) == 8


FILTERS = [
    (PointFilter(any_dir=(11,)), {1, 5}),
    (PointFilter(any_dir=(11, 12)), {1, 2, 5, 6}),
    (PointFilter(any_dir=(404,)), set()),
    (PointFilter(type_labels=("pdf",)), {0, 2, 4, 6}),
    (PointFilter(type_labels=("pdf", "markdown")), set(range(8))),
    (PointFilter(modalities=("image",)), {3, 6}),
    (PointFilter(contents=(content(1), content(6), content(55))), {1, 6}),
    (PointFilter(min_size=500), {5, 6, 7}),
    (PointFilter(max_size=100), {0, 1}),
    (PointFilter(min_size=200, max_size=500), {2, 3, 4, 5}),
    (PointFilter(min_size=0), set(range(8))),
    (PointFilter(kinds=(SegmentKind.OCR,)), {7}),
    (PointFilter(kinds=(SegmentKind.BODY, SegmentKind.OCR)), set(range(8))),
    (PointFilter(type_labels=("pdf",), any_dir=(12,), min_size=300), {6}),
]


@pytest.mark.parametrize(("conditions", "expected"), FILTERS, ids=[str(n) for n in range(len(FILTERS))])
async def test_every_condition_of_a_filter_must_hold(store, space, conditions, expected):
    batch = [
        point(
            space,
            n,
            dirs=(10, 10 + n % 4),
            kind=SegmentKind.OCR if n == 7 else SegmentKind.BODY,
            type_label="markdown" if n % 2 else "pdf",
            modality="image" if n in {3, 6} else "document",
            size=n * 100,
        )
        for n in range(8)
    ]
    await store.upsert(space.name, batch, vectors([vector_of(n) for n in range(8)]))
    vector = vectors([vector_of(0)])
    for is_exact in (False, True):
        [hits] = await store.search([VectorSearch(space.name, vector, 20, conditions, is_exact)])
        assert {int.from_bytes(hit.content.bytes, "big") for hit in hits} == expected


async def test_several_questions_are_answered_in_their_order(store, space):
    other = space_named(f"{space.name}-b", dim=4)
    await store.ensure(other)
    try:
        await store.upsert(space.name, *points_of(space, range(20)))
        await store.upsert(other.name, *points_of(other, range(20)))
        asked = [
            question(space, 3, limit=1),
            question(other, 4, limit=1),
            question(space_named("never-made"), 1),
            question(space, 5, limit=2),
            question(other, 6, limit=1, any_dir=(404,)),
        ]
        answers = await store.search(asked)
        assert [hits[0].content if hits else None for hits in answers] == [
            content(3),
            content(4),
            None,
            content(5),
            None,
        ]
        assert len(answers[3]) == 2
    finally:
        await store.drop(other.name)


async def test_equal_points_come_in_one_order(store, space):
    batch, _ = points_of(space, range(5), segments=2)
    await store.upsert(space.name, batch, vectors([vector_of(1)] * 10))
    [hits] = await store.search([question(space, 1, limit=10)])
    assert [(hit.content, hit.seq) for hit in hits] == [(content(n), seq) for n in range(5) for seq in range(2)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
async def test_a_vector_that_is_no_number_fails_its_file_and_stores_nothing(store, space, bad):
    batch, _ = points_of(space, range(3))
    rows = [vector_of(n) for n in range(3)]
    rows[1][5] = bad
    with pytest.raises(errors.BadAsset, match="body 0"):
        await store.upsert(space.name, batch, vectors(rows))
    assert await store.count(space.name) == 0
    with pytest.raises(errors.BadRequest):
        await store.search([VectorSearch(space.name, vectors([rows[1]]), 3)])


async def test_vectors_of_the_wrong_shape_store_nothing(store, space):
    batch, rows = points_of(space, range(3))
    with pytest.raises(errors.BadRequest):
        await store.upsert(space.name, batch, vectors([vector_of(n, dim=5) for n in range(3)]))
    with pytest.raises(errors.BadRequest):
        await store.upsert(space.name, batch[:2], rows)
    with pytest.raises(errors.BadRequest):
        await store.upsert(space.name, batch, Vectors(rows.data, 3, DIM, (1, 1, 1)))
    with pytest.raises(errors.BadRequest):
        await store.search([VectorSearch(space.name, vectors([vector_of(1, dim=5)]), 3)])
    with pytest.raises(errors.BadRequest):
        await store.search([VectorSearch(space.name, rows, 3)])
    assert await store.count(space.name) == 0


async def test_a_name_that_is_a_path_is_refused(store):
    with pytest.raises(errors.BadRequest):
        await store.ensure(space_named("../../etc"))


async def test_pages_with_many_vectors_are_ranked_by_their_best_matches(store):
    space = space_named(f"pages-{uuid.uuid4().hex[:8]}", dim=4, multi=True)
    await store.ensure(space)
    try:
        batch = [point(space, n, kind=SegmentKind.PAGE, page=n + 1) for n in range(3)]
        rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]
        await store.upsert(space.name, batch, vectors(rows, groups=(2, 1, 2)))
        assert await store.count(space.name) == 3
        asked = vectors([[1, 0, 0, 0], [0, 0, 0, 1]])
        [hits] = await store.search([VectorSearch(space.name, asked, 3)])
        assert [int.from_bytes(hit.content.bytes, "big") for hit in hits] == [2, 0, 1]
        assert [hit.score for hit in hits] == pytest.approx([2.0, 1.0, 0.0], abs=1e-3)
        with pytest.raises(errors.BadRequest):
            await store.upsert(space.name, batch, vectors(rows[:3]))
    finally:
        await store.drop(space.name)


async def test_long_lists_are_streamed_whole(store, space):
    await store.upsert(space.name, *points_of(space, range(900), segments=3))
    assert await contents_in(store, space) == {content(n): 3 for n in range(900)}


async def test_flush_and_optimize_change_no_answer(store, space):
    await store.upsert(space.name, *points_of(space, range(300)))
    before = await store.search([question(space, 5, limit=20, is_exact=True)])
    await store.flush()
    await store.optimize()
    await store.flush()
    after = await store.search([question(space, 5, limit=20, is_exact=True)])
    assert [hit.content for hit in after[0]] == [hit.content for hit in before[0]]
    assert [hit.score for hit in after[0]] == pytest.approx([hit.score for hit in before[0]], abs=1e-5)
    assert await store.count(space.name) == 300


async def test_a_dropped_space_is_gone_and_can_be_made_anew(store, space):
    await store.upsert(space.name, *points_of(space, range(5)))
    await store.drop(space.name)
    assert await store.count(space.name) == 0
    assert space.name not in await store.spaces()
    await store.ensure(space_named(space.name, dim=DIM * 2))
    assert await store.count(space.name) == 0


async def test_health_counts_every_space(store, space):
    await store.upsert(space.name, *points_of(space, range(12)))
    health = await store.health()
    assert health.is_ok
    assert health.reason == ""
    assert health.spaces[space.name].points == 12
    assert health.resident_bytes > 0


async def test_a_limit_of_zero_answers_nothing(store, space):
    await store.upsert(space.name, *points_of(space, range(2)))
    assert await store.search([question(space, 1, limit=0)]) == [[]]


async def test_names_of_spaces_are_listed_in_order(store, space):
    names = await store.spaces()
    assert names == sorted(names)
    assert all(isinstance(name, str) for name in names)
    assert SpaceName(space.name) in names
