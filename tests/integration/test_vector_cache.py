"""Known bytes cost no inference: the cache on a real file, its bound, its damage, and the index built again from it."""

import random
import struct
from array import array

import pytest
from orchestrator_world import OrchestratorWorld

from msearchd.domain.asset import AssetState, ContentHash
from msearchd.domain.media import Segment, SegmentKind
from msearchd.domain.space import ModelKey, Space, SpaceName, SparseVectors, Vectors
from msearchd.orchestrator.document_vectors import DocumentVectors, together
from msearchd.store.vector_cache import VectorCache, key_of

DAY_S = 86_400.0
SPACE = Space(SpaceName("m-1"), ModelKey("m"), "f1", 4)
OTHER = Space(SpaceName("m-2"), ModelKey("m"), "f2", 4)


class Clock:
    now_s = 1000 * DAY_S

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def opened(tmp_path, clock):
    caches = []

    async def again(max_bytes=1 << 20):
        for cache in caches:
            await cache.close()
        caches.clear()
        cache = await VectorCache.open(tmp_path / "vector-cache.db", max_bytes=max_bytes, now_s=clock)
        if cache is not None:
            caches.append(cache)
        return cache

    yield again
    for cache in caches:
        await cache.close()


def keys(*numbers):
    return [number.to_bytes(16, "big") for number in numbers]


def vectors(*firsts, dim=4):
    data = array("f", [value for first in firsts for value in (first, *[0.0] * (dim - 1))])
    return Vectors(data.tobytes(), len(firsts), dim)


def row(first):
    return array("f", [first, 0.0, 0.0, 0.0]).tobytes()


async def test_what_was_put_is_known_after_a_restart_and_nothing_else_is(opened):
    cache = await opened()
    await cache.put(SPACE, keys(1, 2), vectors(0.5, 0.25))
    cache = await opened()
    assert await cache.get(SPACE, keys(2, 3, 1)) == [row(0.25), None, row(0.5)]
    assert cache.snapshot().vectors == 2


async def test_vectors_of_another_fingerprint_are_never_given(opened):
    cache = await opened()
    await cache.put(SPACE, keys(1), vectors(0.5))
    assert await cache.get(OTHER, keys(1)) == [None]
    renamed = Space(SpaceName("new-1"), ModelKey("new"), "f1", 4)
    assert await cache.get(renamed, keys(1)) == [row(0.5)]


async def test_putting_twice_is_putting_once(opened):
    cache = await opened()
    for _ in range(2):
        await cache.put(SPACE, keys(1), vectors(0.5))
    assert cache.snapshot().vectors == 1


async def test_several_rows_of_a_sample_come_back_together(opened):
    cache = await opened()
    space = Space(SpaceName("late"), ModelKey("late"), "f3", 4, multi=True)
    many = vectors(0.5, 0.25, 0.125)
    await cache.put(space, keys(1, 2), Vectors(many.data, 3, 4, rows=(2, 1)))
    found = await cache.get(space, keys(1, 2))
    assert together(found, space=space) == Vectors(bytes(many.data), 3, 4, rows=(2, 1))


async def test_sparse_vectors_come_back_with_their_dimensions_even_one_of_no_entries(opened):
    cache = await opened()
    space = Space(SpaceName("words"), ModelKey("words"), "f4", 30_522, "dot", sparse=True)
    data = b"".join(struct.pack("<If", *entry) for entry in [(3, 0.5), (30_000, 1.25), (7, 2.0)])
    known = SparseVectors(data, 3, 30_522, (2, 0, 1))
    await cache.put(space, keys(1, 2, 3), known)
    assert together(await cache.get(space, keys(1, 2, 3)), space=space) == known
    assert together(await cache.get(space, keys(3)), space=space) == SparseVectors(data[16:], 1, 30_522, (1,))


async def test_over_its_bound_the_longest_not_asked_for_go_first(opened, clock):
    cache = await opened()
    await cache.put(SPACE, keys(*range(2000)), vectors(*[0.5] * 2000))
    full = cache.snapshot().size_bytes
    clock.now_s += DAY_S
    await cache.get(SPACE, keys(*range(500)))
    cache = await opened(max_bytes=full // 2)
    assert cache.snapshot().size_bytes <= full // 2
    assert None not in await cache.get(SPACE, keys(*range(500)))
    assert (await cache.get(SPACE, keys(*range(500, 1000)))) == [None] * 500


async def test_the_file_stays_within_its_bound_whatever_is_put(opened, tmp_path):
    wide = Space(SpaceName("w"), ModelKey("w"), "w", 384)
    cache = await opened(max_bytes=4 << 20)
    rows = random.Random(1).randbytes(16 * 500)
    data = array("f", [0.05] * 384 * 500).tobytes()
    for turn in range(30):
        names = [bytes([turn]) + rows[16 * n : 16 * n + 15] for n in range(500)]
        await cache.put(wide, names, Vectors(data, 500, 384))
    assert cache.snapshot().size_bytes <= 4 << 20
    await opened()
    assert (tmp_path / "vector-cache.db").stat().st_size < 1.5 * (4 << 20)


async def test_a_bound_of_nothing_deletes_the_file(opened, tmp_path):
    await (await opened()).put(SPACE, keys(1), vectors(0.5))
    assert await opened(max_bytes=0) is None
    assert not list(tmp_path.iterdir())


async def test_a_file_that_is_no_database_is_made_anew(opened, tmp_path):
    (tmp_path / "vector-cache.db").write_bytes(b"no database" * 1000)
    cache = await opened()
    await cache.put(SPACE, keys(1), vectors(0.5))
    assert await cache.get(SPACE, keys(1)) == [row(0.5)]


async def test_a_damaged_page_costs_inference_and_no_error(opened, tmp_path):
    cache = await opened()
    await cache.put(SPACE, keys(*range(5000)), vectors(*[0.5] * 5000))
    await cache.close()
    file = tmp_path / "vector-cache.db"
    content = bytearray(file.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(content)
    cache = await opened()
    found = await cache.get(SPACE, keys(*range(5000)))
    assert len(found) == 5000
    await cache.put(SPACE, keys(9999), vectors(0.5))
    cache = await opened()  # the damaged one went when it was closed
    assert await cache.get(SPACE, keys(1)) == [None]
    await cache.put(SPACE, keys(1), vectors(0.5))
    assert await cache.get(SPACE, keys(1)) == [row(0.5)]


async def test_only_what_is_not_known_is_computed_and_the_order_is_kept(opened):
    class Counting:
        def __init__(self):
            self.seen = []

        async def embed(self, samples, *, model, role, lane, deadline_s):
            self.seen += samples
            return vectors(*[float(sample) for sample in samples])

    pool, cache = Counting(), await opened()
    source = DocumentVectors(pool, cache)
    await source.of(["0.5", "0.25"], keys(1, 2), space=SPACE, deadline_s=1)
    mixed = await source.of(["0.75", "0.5", "0.125", "0.25"], keys(3, 1, 4, 2), space=SPACE, deadline_s=1)
    assert pool.seen == ["0.5", "0.25", "0.75", "0.125"]
    assert bytes(mixed.data) == row(0.75) + row(0.5) + row(0.125) + row(0.25)


def test_a_key_is_the_text_of_a_passage_and_the_place_of_a_picture():
    one, two = ContentHash(b"1" * 32), ContentHash(b"2" * 32)
    passage = Segment(SegmentKind.BODY, 0, "words")
    assert key_of(one, passage) == key_of(two, Segment(SegmentKind.OCR, 7, "words"))
    assert key_of(one, passage) != key_of(one, Segment(SegmentKind.BODY, 0, "other words"))
    picture = Segment(SegmentKind.IMAGE, 0)
    assert key_of(one, picture) == key_of(one, picture) != key_of(two, picture)
    assert key_of(one, Segment(SegmentKind.AUDIO, 0, t0_ms=0)) != key_of(one, Segment(SegmentKind.AUDIO, 1, t0_ms=9))


# -- the index ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def world(tmp_path):
    world = OrchestratorWorld(tmp_path)
    world.cache_bytes = 1 << 20
    await world.open()
    yield world
    await world.close()


async def test_after_a_reset_the_index_is_built_again_with_no_forward_pass(world):
    for name in (b"a.txt", b"b.txt"):
        await world.save(name, f"words of {name}|and more|of the same")
    await world.settle()
    world.models.embedded.clear()
    for what in ("index", "database"):
        await world.reset(what)
        if what == "database":
            await world.restarted()
            for name in (b"a.txt", b"b.txt"):
                await world.save(name, f"words of {name}|and more|of the same")
        await world.settle()
        assert world.models.embedded == []
        for name in (b"a.txt", b"b.txt"):
            assert await world.state(name) is AssetState.INDEXED
            assert len(world.points_of("minilm-1", await world.content_of(name))) == 3


async def test_a_reset_of_everything_forgets_the_vectors_too(world):
    await world.save(b"a.txt", "words")
    await world.settle()
    await world.reset("all")
    assert world.cache.snapshot().vectors == 0


async def test_a_store_that_lost_its_points_is_filled_with_no_forward_pass(world):
    await world.save(b"a.txt", "words|and more")
    await world.settle()
    world.models.embedded.clear()
    world.store.points["minilm-1"].clear()
    await world.restarted()
    await world.recovery.at_start()
    await world.settle()
    assert world.models.embedded == []
    assert len(world.points_of("minilm-1", await world.content_of(b"a.txt"))) == 2


async def test_of_an_edited_file_only_the_changed_passages_are_computed(world):
    await world.save(b"a.txt", "first|second|third")
    await world.settle()
    world.models.embedded.clear()
    await world.save(b"a.txt", "first|changed|third")
    await world.settle()
    assert world.models.embedded == ["changed"]
