"""The OpenAI-shaped routes as client libraries meet them: over the network listener and over the Unix socket."""

import asyncio
import base64
import contextlib
import json
import struct

import httpx
import httpx2
import openai
import pytest
from fake_control import FakeControl
from gateway_world import DIM, WordsPool, unpacked, vector, words_gateway

from msearchd import errors
from msearchd.api.network import network
from msearchd.api.server import ControlServer
from msearchd.control.gateway import GatewayHealth
from msearchd.settings import ApiSettings
from msearchd.settings.address import Address

TOKEN = "token-of-at-least-16-characters"


@contextlib.asynccontextmanager
async def served(tmp_path, *, pool=None, token=TOKEN, health=None):
    control = FakeControl({b"/docs/ferry.txt": "invoice"})
    server = ControlServer(
        control,
        ApiSettings(socket=tmp_path / "c.sock"),
        gateway=words_gateway(pool, health=health),
        network=network(Address("127.0.0.1", 0), token=token, hosts=["nas.home"]),
        environ={},
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        await control.close()


def port_of(server):
    return next(address[1] for address in server.addresses if isinstance(address, tuple))


@contextlib.asynccontextmanager
async def openai_client(server, *, token=TOKEN):
    url = f"http://127.0.0.1:{port_of(server)}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=token, max_retries=0, timeout=20) as client:
        yield client


@contextlib.asynccontextmanager
async def web(server, *, token=TOKEN, **headers):
    sent = {**({"authorization": f"Bearer {token}"} if token else {}), **headers}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(server)}", headers=sent) as client:
        yield client


@contextlib.asynccontextmanager
async def local(tmp_path):
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "c.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


# -- the openai package, unchanged -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
async def test_the_openai_package_embeds(tmp_path, encoding):
    async with served(tmp_path) as server, openai_client(server) as client:
        found = await client.embeddings.create(model="words", input=["north sea", "ferry"], **encoding)
    assert [item.index for item in found.data] == [0, 1]
    for item, text in zip(found.data, ["north sea", "ferry"], strict=True):
        numbers = (
            item.embedding
            if isinstance(item.embedding, list)
            else struct.unpack(f"<{DIM}f", base64.b64decode(item.embedding))
        )
        assert list(numbers) == pytest.approx(unpacked(vector(text)), abs=1e-6)
    assert found.model == "words"
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0


async def test_the_openai_package_asks_for_fewer_dimensions(tmp_path):
    async with served(tmp_path) as server, openai_client(server) as client:
        found = await client.embeddings.create(model="words", input="x", dimensions=4)
    assert len(found.data[0].embedding) == 4
    assert sum(number**2 for number in found.data[0].embedding) == pytest.approx(1.0, abs=1e-5)


async def test_the_openai_package_works_through_the_unix_socket(tmp_path):
    async with served(tmp_path):
        transport = httpx2.AsyncHTTPTransport(uds=str(tmp_path / "c.sock"))
        async with (
            httpx2.AsyncClient(transport=transport) as http,
            openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="unused", http_client=http) as client,
        ):
            assert [model.id async for model in client.models.list()] == [
                "words",
                "pictures",
                "sounds",
                "judge",
                "scribe",
            ]
            assert (await client.embeddings.create(model="words", input="x")).data[0].embedding


async def test_the_openai_package_lists_and_finds_models(tmp_path):
    async with served(tmp_path) as server, openai_client(server) as client:
        assert (await client.models.retrieve("words")).owned_by == "msearchd"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("ada")


async def test_errors_are_the_openai_packages_own(tmp_path):
    pool = WordsPool()
    async with served(tmp_path, pool=pool) as server, openai_client(server) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.embeddings.create(model="ada", input="x")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="tokens are not taken") as tokens:
            await client.embeddings.create(model="words", input=[1, 2, 3])
        assert tokens.value.param == "input"
        pool.raises = errors.Misconfigured("no weights of 'words'", key="model:words", hint="type: this line")
        with pytest.raises(openai.APIStatusError, match="type: this line") as missing:
            await client.embeddings.create(model="words", input="x")
        assert missing.value.status_code == 424
        pool.raises = errors.RetryLater("memory is short", after_s=3)
        with pytest.raises(openai.InternalServerError) as later:
            await client.embeddings.create(model="words", input="x")
        assert later.value.status_code == 503
        assert later.value.response.headers["retry-after"] == "3"
        pool.raises = RuntimeError("secret detail")
        with pytest.raises(openai.InternalServerError) as bug:
            await client.embeddings.create(model="words", input="x")
        assert "secret" not in str(bug.value)
    async with served(tmp_path) as server, openai_client(server, token="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


# -- the other routes --------------------------------------------------------------------------------------------------


async def test_rerank_answers_as_other_servers_do(tmp_path):
    body = {"model": "judge", "query": "ferry", "documents": ["tea", "a ferry"], "top_n": 1, "return_documents": True}
    async with served(tmp_path) as server, web(server) as client:
        reply = (await client.post("/v1/rerank", json=body)).json()
    assert reply["object"] == "rerank"
    assert reply["results"] == [{"index": 1, "relevance_score": 0.5, "document": {"text": "a ferry"}}]
    assert reply["usage"]["total_tokens"] > 0


async def test_a_document_that_was_not_asked_for_is_left_out(tmp_path):
    async with served(tmp_path) as server, web(server) as client:
        reply = (await client.post("/v1/rerank", json={"query": "ferry", "documents": ["tea"]})).json()
    assert "document" not in reply["results"][0]


async def test_many_vectors_are_a_list_of_lists(tmp_path):
    async with served(tmp_path, pool=WordsPool(rows_each=2)) as server, web(server) as client:
        reply = (await client.post("/v1/embeddings", json={"model": "words", "input": "x"})).json()
    assert [len(row) for row in reply["data"][0]["embedding"]] == [DIM, DIM]


async def test_health_says_503_until_it_is_well_and_needs_no_token(tmp_path):
    state = ["starting"]

    async def health():
        return GatewayHealth(status=state[0], reason="the model loads")

    async with served(tmp_path, health=health) as server, web(server, token="") as client:
        assert (await client.get("/health")).status_code == 503
        state[0] = "ok"
        assert (await client.get("/health")).status_code == 200


async def test_a_picture_larger_than_the_control_apis_limit_is_taken(tmp_path):
    async with served(tmp_path) as server, web(server) as client:
        uri = "data:image/png;base64," + base64.b64encode(b"PIC\xff\x00\x00" + bytes(9 * 2**20)).decode()
        assert (await client.post("/v1/embeddings", json={"model": "pictures", "input": uri})).status_code == 200
        reply = await client.post("/v1/embeddings", json={"input": "x" * (33 * 2**20)})
        assert reply.status_code == 413
        assert "error" in reply.json()


# -- the door ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/embeddings"), ("POST", "/v1/rerank")]
)
async def test_every_call_through_the_network_needs_the_token(tmp_path, method, path):
    async with served(tmp_path) as server, web(server, token="") as client:
        reply = await client.request(method, path, json={"input": "x"} if method == "POST" else None)
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "path", ["/control/v1/status", "/control/v1/openapi.json", "/control/v1/health", "/control/v1/version"]
)
async def test_the_control_api_is_not_in_the_network_even_with_the_token(tmp_path, path):
    async with served(tmp_path) as server, web(server) as client:
        reply = await client.get(path)
        assert reply.status_code == 404
        assert (await client.get(reply.json()["hint"].split()[1])).status_code == 200  # what it names is there


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "evil.example"}, 421), ({"origin": "http://localhost"}, 421), ({"referer": "http://x/"}, 421),
     ({"host": "nas.home"}, 200), ({"host": "192.168.1.9:80"}, 200)],
)  # fmt: skip
async def test_web_pages_and_rebound_names_are_refused(tmp_path, headers, status):
    async with served(tmp_path) as server, web(server, **headers) as client:
        assert (await client.get("/v1/models")).status_code == status


async def test_the_unix_socket_needs_no_token_and_serves_both(tmp_path):
    async with served(tmp_path), local(tmp_path) as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/control/v1/status")).status_code == 200
        assert (await client.get("/health")).json() == {"status": "ok", "reason": ""}


async def test_the_document_describes_what_is_served(tmp_path):
    async with served(tmp_path) as server, local(tmp_path) as client, web(server) as far:
        whole = (await client.get("/control/v1/openapi.json")).json()["paths"]
        part = (await far.get("/v1/openapi.json")).json()["paths"]
    assert {"/v1/embeddings", "/v1/rerank", "/v1/models", "/v1/models/{id}", "/health"} == part.keys()
    assert part.keys() < whole.keys()


async def test_a_taken_port_is_told_with_what_to_do(tmp_path):
    async with served(tmp_path) as server:
        taken = network(Address("127.0.0.1", port_of(server)), token=TOKEN)
        other = ControlServer(
            FakeControl(),
            ApiSettings(socket=tmp_path / "other.sock"),
            gateway=words_gateway(),
            network=taken,
            environ={},
        )
        with pytest.raises(errors.Misconfigured, match=r"cannot listen at 127\.0\.0\.1"):
            await other.start()
        assert not (tmp_path / "other.sock").exists()


async def test_a_caller_who_hangs_up_cancels_the_work(tmp_path):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class SlowPool(WordsPool):
        async def embed(self, samples, **_options):
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async with served(tmp_path, pool=SlowPool()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        body = json.dumps({"input": "x"}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await asyncio.wait_for(begun.wait(), 10)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 10)
