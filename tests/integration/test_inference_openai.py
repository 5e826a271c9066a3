"""Models on other servers: the real engine against real HTTP servers."""

import json
import math
import struct
import threading

import pytest
from inference_fakes import cosine, embed, rows
from model_servers import DIM, ModelServer, letters, likeness

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.sample import Pair, Picture
from msearchd.domain.space import ModelKey
from msearchd.inference import remote
from msearchd.inference.pool import Lane, Pool
from msearchd.inference.worker.engines.base import LoadOrder
from msearchd.inference.worker.engines.openai import OpenaiEngine
from msearchd.inference.worker.engines.servers import Fleet
from msearchd.settings.model import EmbeddingModel, InferenceSettings

FAR = ModelKey("far")


@pytest.fixture
def servers():
    made = []

    def make(*arguments, **options):
        made.append(ModelServer(*arguments, **options))
        return made[-1]

    yield make
    for server in made:
        server.close()


def model(*urls, **changes) -> EmbeddingModel:
    return EmbeddingModel(**{"name": FAR, "source": "letters", "engine": "openai", "urls": urls} | changes)


@pytest.fixture
def loaded(tmp_path):
    engines = []

    def load(*urls, **changes) -> OpenaiEngine:
        wanted = model(*urls, **changes)
        engines.append(OpenaiEngine(fleet=lambda servers: Fleet(servers, sleep=lambda _s: None)))
        folder = remote.write_card(wanted, state_dir=tmp_path)
        engines[-1].load(LoadOrder(folder=str(folder), serves=wanted.serves))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def unit(text: str) -> bytes:
    row = letters(text)
    norm = math.sqrt(sum(number**2 for number in row))
    return struct.pack(f"<{DIM}f", *(number / norm for number in row))


def embedded(engine, texts) -> list[bytes]:
    data = bytes(engine.embed(engine.prepare(texts, role="document"), range(len(texts)), width=1).data)
    return [data[start : start + DIM * 4] for start in range(0, len(data), DIM * 4)]


@pytest.mark.parametrize("knows_base64", [True, False])
def test_vectors_keep_their_order_and_have_length_one(tmp_path, servers, loaded, knows_base64):
    server = servers(knows_base64=knows_base64)
    engine = loaded(server.url)
    texts = [f"text {chr(97 + index % 26) * (index + 1)}" for index in range(100)] + ["", "caf\udce9"]
    for text, row in zip(texts[:100], embedded(engine, texts), strict=False):
        assert cosine(row, unit(text)) == pytest.approx(1.0, abs=1e-6)
    assert max(len(body["input"]) for _, body in server.asked) <= 32
    assert all(("encoding_format" in body) == knows_base64 for _, body in server.asked[1:])


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_in_v1_or_not(tmp_path, servers, loaded, base):
    server = servers()
    assert embedded(loaded(server.url + base), ["a"])
    assert {path for path, _ in server.asked} == {"/v1/embeddings"}


def test_a_server_without_v1_in_its_paths_is_asked_without(tmp_path, servers, loaded):
    server = servers()
    server.answer = lambda path, body: (
        server.embeddings(body) if path == "/embeddings" else (404, {"detail": "Not Found"})
    )
    engine = loaded(server.url)
    assert cosine(embedded(engine, ["x"])[0], unit("x")) > 0.999999
    assert [path for path, _ in server.asked] == ["/v1/embeddings", "/embeddings", "/embeddings"]


@pytest.mark.parametrize("flavour", ["vllm", "infinity", "tei"])
def test_every_servers_way_to_rank_is_found_and_kept(tmp_path, servers, loaded, flavour):
    server = servers(flavour)
    engine = loaded(server.url, serves="rerank")
    asked = len(server.asked)
    texts = ["red circle", "a blue square", "red red square"]
    pairs = [Pair("red square", text) for text in texts] + [Pair("blue", texts[1])]
    scores = struct.unpack("<4f", engine.embed(engine.prepare(pairs, role="query"), range(4), width=1).data)
    for pair, score in zip(pairs, scores, strict=True):  # raw: the sigmoid is the pool's
        assert 1 / (1 + math.exp(-score)) == pytest.approx(likeness(pair.query, pair.text), abs=1e-5)
    assert len(server.asked) - asked == 2  # one call a question: the way is known


def test_work_is_shared_and_never_more_than_two_at_a_time_go_to_one_server(tmp_path, servers, loaded):
    fleet = [servers(), servers()]
    engine = loaded(*(server.url for server in fleet))
    for server in fleet:
        server.delay_s = 0.05
    assert len(embedded(engine, ["x"] * 32 * 8)) == 256
    counts = [len(server.asked) for server in fleet]
    assert sum(counts) == 9
    assert min(counts) >= 3
    assert max(server.most_at_once for server in fleet) <= 3


def test_one_server_that_fails_is_left_alone_and_nothing_is_lost(tmp_path, servers, loaded):
    good, bad = servers(), servers()
    engine = loaded(bad.url, good.url)
    bad.close()
    assert len(embedded(engine, ["x"] * 96)) == 96
    (resting,) = [one for one in engine._fleet.snapshot() if one.url == bad.url]
    assert resting.failures >= 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_server_that_is_busy_is_asked_again(tmp_path, servers, loaded, status):
    server = servers()
    engine = loaded(server.url)
    server.troubles = [status]
    asked = len(server.asked)
    assert cosine(embedded(engine, ["x"])[0], unit("x")) > 0.999999
    assert len(server.asked) - asked == 2


def test_no_server_at_all_is_a_delay(tmp_path, servers, loaded):
    server = servers()
    engine = loaded(server.url)
    server.close()
    engine._fleet.close()
    with pytest.raises(errors.RetryLater, match=server.url):
        embedded(engine, ["x"])
    with pytest.raises(errors.RetryLater, match=server.url):
        loaded(server.url)


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again(tmp_path, servers, loaded):
    server = servers()
    engine = loaded(server.url)
    server.close()
    again = servers(port=server.port)
    assert embedded(engine, ["x"])
    assert again.asked
    assert engine._fleet.snapshot()[0].failures == 0


def test_the_key_is_read_from_its_file_and_a_wrong_one_is_told(tmp_path, servers, loaded):
    server = servers(key="s3cret")
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    assert embedded(loaded(server.url, api_key_file=str(key)), ["x"])
    key.write_text("wrong")
    with pytest.raises(errors.Misconfigured, match="refuses our key") as caught:
        loaded(server.url, api_key_file=str(key))
    assert caught.value.key == "engine:openai"
    with pytest.raises(errors.Misconfigured, match="cannot be read"):
        loaded(server.url, api_key_file=str(tmp_path / "nowhere"))
    for file in tmp_path.rglob("remote/*/*"):
        assert "s3cret" not in file.read_text()


def test_a_model_that_the_server_has_not_is_told(tmp_path, servers, loaded):
    with pytest.raises(errors.Misconfigured, match="no model unknown") as caught:
        loaded(servers().url, source="unknown")
    assert "source" in caught.value.hint


def test_a_kind_that_it_does_not_read_is_told(tmp_path, servers, loaded):
    with pytest.raises(errors.BadAsset, match="text alone"):
        loaded(servers().url).prepare([Picture(1, 1, b"rgb")], role="document")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"data": []},
        {"data": [{"index": 0, "embedding": "not base64!"}]},
        {"data": [{"index": 0, "embedding": [0.0] * DIM}]},
        {"data": [{"index": 0, "embedding": [float("nan")] * DIM}]},
        {"data": [{"index": 1, "embedding": [1.0] * DIM}]},
    ],
)
def test_an_answer_of_another_form_never_becomes_a_vector(tmp_path, servers, loaded, answer):
    server = servers()
    engine = loaded(server.url)
    server.answer = lambda _path, _body: (200, answer)
    with pytest.raises(errors.RetryLater, match="something else"):
        embedded(engine, ["x"])


def test_a_server_that_moves_keeps_the_space_and_another_model_does_not(tmp_path):
    from msearchd.inference.spec import resolve

    def fingerprint(**changes):
        wanted = model("http://one:8000", **changes)
        return resolve(wanted, allow_download=False, chunking="c", state_dir=tmp_path).card.fingerprint

    assert fingerprint() == fingerprint(urls=("http://two:9000", "http://three"), api_key_file="/k")
    assert fingerprint() != fingerprint(source="other")
    assert fingerprint() != fingerprint(document_prompt="passage: ")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:99999", "http://me:pw@host"])
def test_an_address_that_is_none_is_told(tmp_path, url):
    with pytest.raises(errors.Misconfigured) as caught:
        remote.write_card(model(url), state_dir=tmp_path)
    assert caught.value.hint


def test_engine_openai_without_urls_is_told(tmp_path):
    with pytest.raises(errors.Misconfigured, match="names no server"):
        remote.write_card(model(), state_dir=tmp_path)


async def test_through_pool_and_wire_an_outage_delays_and_blames_no_text(tmp_path, servers):
    server = servers()
    wanted = model(server.url, engine="auto")
    settings = InferenceSettings(models=(wanted,), text_model=FAR)
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    try:
        texts = [f"passage {index}" for index in range(40)]
        vectors = await embed(pool, texts, model=FAR)
        for text, row in zip(texts, rows(vectors), strict=True):
            assert cosine(row, unit(text)) > 0.999999
        with pytest.raises(errors.BadAsset):  # a text that the server refuses harms only itself
            await embed(pool, ["forbidden"], model=FAR)
        server.close()
        with pytest.raises(errors.RetryLater):
            await embed(pool, texts, model=FAR)
        back = servers(port=server.port)
        assert (await embed(pool, texts[:3], model=FAR)).count == 3
        assert back.asked
        (status,) = pool.snapshot().models
    finally:
        await pool.close()
    assert (status.engine, status.device, status.dim) == ("openai", "remote", DIM)
    assert status.resident_bytes < 100 << 20


async def test_ranking_through_the_pool_gives_the_servers_own_scores(tmp_path, servers):
    server = servers("tei")
    wanted = model(server.url, serves="rerank")
    settings = InferenceSettings(models=(wanted,), text_model="", rerank_model=FAR)
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path)
    texts = ["a b c", "x", "a b"]
    try:
        scores = await pool.rerank("a b", texts, model=FAR, lane=Lane.INTERACTIVE, deadline_s=30)
    finally:
        await pool.close()
    assert scores == pytest.approx([likeness("a b", text) for text in texts], abs=1e-5)


def test_servers_conf_is_plain_and_complete(tmp_path):
    folder = remote.write_card(model("http://one:1/", api_key_file="~/key"), state_dir=tmp_path)
    assert json.loads((folder / "servers.conf").read_text())["urls"] == ["http://one:1"]
    assert remote.read_servers(folder).model == "letters"
    assert threading.active_count() < 50
