"""Values on the wire, growth arithmetic, error translation, and what the daemon may import."""

import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import ModelKey, Point, PointPayload, Space, SpaceName, Vectors
from msearchd.settings.model import StoreSettings
from msearchd.store import codec
from msearchd.store.backends import growth
from msearchd.store.backends.port import StoreStart, checked_name
from msearchd.store.backends.server_errors import translated
from msearchd.store.client import StoreProcess, chosen_backend, start_of
from msearchd.store.process import engine_module
from msearchd.store.vector_store import PointFilter, ScoredPoint, VectorSearch

uuids = st.builds(uuid.UUID, int=st.integers(0, 2**128 - 1))
kinds = st.sampled_from(SegmentKind)
sizes = st.integers(0, 2**53)
payloads = st.builds(
    PointPayload,
    content=uuids,
    kind=kinds,
    seq=st.integers(0, 2**31),
    dirs=st.lists(st.integers(0, 2**40)).map(tuple),
    type_label=st.text(),
    modality=st.text(),
    size=sizes,
    page=st.none() | sizes,
    t0_ms=st.none() | sizes,
    t1_ms=st.none() | sizes,
    host=st.text(),
)
points = st.lists(st.builds(Point, id=uuids, payload=payloads))
filters = st.builds(
    PointFilter,
    any_dir=st.lists(sizes).map(tuple),
    type_labels=st.lists(st.text()).map(tuple),
    modalities=st.lists(st.text()).map(tuple),
    contents=st.lists(uuids).map(tuple),
    min_size=st.none() | sizes,
    max_size=st.none() | sizes,
    kinds=st.lists(kinds).map(tuple),
)


@given(points)
def test_points_always_come_out_of_the_wire_as_they_went_in(batch):
    assert codec.points_from_wire(codec.points_to_wire(batch)) == batch


@given(filters)
def test_filters_always_come_out_as_they_went_in(conditions):
    assert codec.filter_from_wire(codec.filter_to_wire(conditions)) == conditions


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), sizes, st.booleans(), filters)))
def test_searches_always_keep_their_own_vectors(shapes):
    searches = [
        VectorSearch(
            SpaceName(f"space-{n}"), Vectors(bytes([n % 256]) * (count * dim * 4), count, dim), limit, conditions, exact
        )
        for n, (dim, count, limit, exact, conditions) in enumerate(shapes)
    ]
    rows, body = codec.searches_to_wire(searches)
    assert codec.searches_from_wire(rows, memoryview(body)) == searches


@given(st.lists(st.lists(st.builds(ScoredPoint, uuids, kinds, st.integers(0, 2**31), st.floats(-1, 1)))))
def test_hits_always_come_out_as_they_went_in(lists):
    assert codec.hits_from_wire(codec.hits_to_wire(lists)) == lists


@given(st.integers(0, 40), st.integers(1, 7), st.data())
def test_chunks_never_separate_a_point_from_its_vectors(count, size, data):
    batch = [Point(uuid.UUID(int=n), PointPayload(uuid.UUID(int=n), SegmentKind.PAGE, n, ())) for n in range(count)]
    groups = tuple(data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count)))
    tables = [bytes([n]) * (rows * 4) for n, rows in enumerate(groups)]
    pieces = codec.chunks_of(batch, Vectors(b"".join(tables), sum(groups), 1, groups), size=size)
    assert [point for part, _ in pieces for point in part] == batch
    assert all(len(part) <= size for part, _ in pieces)
    for part, vectors in pieces:
        assert bytes(vectors.data) == b"".join(tables[point.payload.seq] for point in part)
        assert vectors.rows == tuple(groups[point.payload.seq] for point in part)


def test_points_and_vectors_that_do_not_match_in_number_are_refused():
    with pytest.raises(ValueError, match="do not match"):
        codec.chunks_of([], Vectors(bytes(4), 1, 1), size=8)


def test_a_space_survives_its_description():
    space = Space(SpaceName("a"), ModelKey("m"), "f", 384, multi=True)
    assert codec.space_from_wire(codec.space_to_wire(space)) == space


@pytest.mark.parametrize("name", ["", "a/b", "..", ".lock", "A", "a" * 122, "a\n", "ä"])
def test_a_space_cannot_be_named(name):
    with pytest.raises(errors.BadRequest):
        checked_name(name)


@given(st.integers(1_000, 10**6), st.integers(1, 4096))
def test_a_unit_of_points_always_passes_the_threshold_of_its_segment(quantize_above, dim):
    sizes = growth.segment_sizes(dim=dim, quantize_above=quantize_above)
    unit_kib = growth.unit_points(quantize_above) * dim * 4 / 1024
    assert sizes.indexing_threshold_kib <= max(1, unit_kib)
    assert sizes.max_segment_kib > unit_kib


def test_small_spaces_stay_exact_and_large_ones_are_quantized_unit_by_unit():
    def wants(points, unquantized):
        return growth.wants_optimize(points=points, unquantized=unquantized, quantize_above=20_000)

    assert not wants(20_000, 20_000)
    assert wants(20_001, 20_001)
    assert not wants(100_000, growth.UNIT_POINTS - 1)
    assert wants(100_000, growth.UNIT_POINTS)


def test_a_start_crosses_the_wire_whole(tmp_path):
    start = start_of(StoreSettings(url="http://host:6333", tenant="desk", shard_number=3), tmp_path)
    assert StoreStart.from_wire(start.to_wire()) == start
    assert (start.backend, start.tenant, start.shard_number) == ("server", "desk", 3)


def test_the_engine_follows_from_the_settings():
    assert chosen_backend(StoreSettings()) == "edge"
    assert chosen_backend(StoreSettings(url="http://host:6333")) == "server"
    assert chosen_backend(StoreSettings(backend="edge", url="http://host:6333")) == "edge"
    with pytest.raises(errors.Misconfigured) as refused:
        chosen_backend(StoreSettings(backend="server"))
    assert refused.value.key == "store.url"
    assert "url" in refused.value.hint


def test_a_server_without_a_tenant_takes_the_host_name(tmp_path):
    assert start_of(StoreSettings(url="http://host:6333"), tmp_path).tenant
    assert start_of(StoreSettings(), tmp_path).tenant == ""


class _HttpError(Exception):
    def __init__(self, status_code):
        super().__init__(f"Unexpected Response: {status_code}")
        self.status_code = status_code


class _GrpcError(Exception):
    def __init__(self, name):
        super().__init__(name)
        self.name = name

    def code(self):
        return self

    def details(self):
        return "say why"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_HttpError(503), errors.RetryLater),
        (_HttpError(429), errors.RetryLater),
        (_HttpError(500), errors.RetryLater),
        (_HttpError(401), errors.Misconfigured),
        (_HttpError(403), errors.Misconfigured),
        (_HttpError(404), errors.NotFound),
        (_HttpError(400), errors.BadRequest),
        (_HttpError(418), errors.Bug),
        (ConnectionResetError(), errors.RetryLater),
        (TimeoutError(), errors.RetryLater),
        (_GrpcError("UNAVAILABLE"), errors.RetryLater),
        (_GrpcError("NOT_FOUND"), errors.NotFound),
        (_GrpcError("UNAUTHENTICATED"), errors.Misconfigured),
        (ValueError("x"), errors.Bug),
        (errors.BadAsset("y"), errors.BadAsset),
    ],
)
def test_what_a_server_says_becomes_one_of_our_verbs(error, kind):
    told = translated(error, "searching", "http://host:6333")
    assert type(told) is kind
    if kind in {errors.RetryLater, errors.Misconfigured}:
        assert told.hint
        assert "http://host:6333" in str(told)


def test_the_daemon_never_imports_an_engine_or_numpy():
    code = (
        "import sys, msearchd.store.client, msearchd.store.vector_store; "
        "print([m for m in ('qdrant_edge', 'qdrant_client', 'numpy', 'grpc', 'torch') if m in sys.modules])"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


async def test_a_store_that_was_never_used_starts_no_process(tmp_path):
    store = StoreProcess(StoreSettings(), tmp_path, Limits())
    assert store.pid is None
    assert repr(store) == "<StoreProcess edge not running | 0 spaces open | 0 restarts>"
    await store.close()
    await store.close()
    health = await store.health()
    assert not health.is_ok
    assert health.reason
    with pytest.raises(errors.RetryLater):
        await store.count(SpaceName("a"))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told_with_the_line_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    for name in ("edge", "shard"):
        monkeypatch.delitem(sys.modules, f"msearchd.store.backends.{name}", raising=False)
    with pytest.raises(errors.Misconfigured) as refused:
        engine_module("edge")
    assert refused.value.key == "engine:edge"
    assert "pip install" in refused.value.hint
