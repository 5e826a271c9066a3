"""Models for other programs: the daemon's gateway and `msearchd serve-model` as real processes with a real model."""

import base64
import contextlib
import io
import json
import os
import random
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import pytest
from daemon_harness import _DIE_WITH_US, daemon_home
from tiny_models import sounds
from tiny_models.cross import pair_of
from tiny_models.drawings import draw

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["a ferry across the north sea", "the ship over the water", "a recipe for apple cake"]


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def assert_means_what_it_says(vectors):
    """The two of the sea are nearer to each other than to the cake; all have length one."""
    ferry, ship, cake = vectors
    assert len(ferry) == 384
    assert dot(ferry, ferry) == pytest.approx(1.0, abs=1e-4)
    assert dot(ferry, ship) > dot(ferry, cake) + 0.2


@pytest.fixture(scope="module")
def listening_daemon():
    with daemon_home({"api": {"listen": "127.0.0.1:0"}}) as home:
        home.start()
        yield home
        home.stop()


def port_of(home):
    sockets = home.events("api listening")[-1]["sockets"]
    return next(address[1] for address in sockets if isinstance(address, list))


def token_of(home):
    return (home.data_dir / "api.token").read_text().strip()


def test_the_openai_package_embeds_with_the_daemons_model(listening_daemon):
    home = listening_daemon
    url = f"http://127.0.0.1:{port_of(home)}/v1"
    with openai.OpenAI(base_url=url, api_key=token_of(home), max_retries=0, timeout=90) as client:
        found = client.embeddings.create(model="all-minilm-l6-v2", input=TEXTS)
        assert_means_what_it_says([item.embedding for item in found.data])
        short = client.embeddings.create(model=MINILM, input=TEXTS[0], dimensions=64)
        assert len(short.data[0].embedding) == 64
        assert [model.id for model in client.models.list()] == ["all-minilm-l6-v2"]
        with pytest.raises(openai.NotFoundError, match="there is: all-minilm-l6-v2"):
            client.embeddings.create(model="text-embedding-3-small", input="x")


def test_the_token_is_private_and_survives_a_restart(listening_daemon):
    home = listening_daemon
    before = token_of(home)
    assert stat.S_IMODE((home.data_dir / "api.token").stat().st_mode) == 0o600
    home.stop()
    home.start()
    assert token_of(home) == before


def test_without_the_token_the_network_says_no(listening_daemon):
    url = f"http://127.0.0.1:{port_of(listening_daemon)}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/v1/models", timeout=30)
    assert refused.value.code == 401
    refused.value.close()
    with urllib.request.urlopen(f"{url}/health", timeout=30) as reply:
        assert json.load(reply)["status"] == "ok"


def test_a_daemon_that_was_not_asked_to_opens_no_port(words_daemon):
    sockets = words_daemon.events("api listening")[-1]["sockets"]
    assert all(isinstance(address, str) for address in sockets)
    assert not (words_daemon.data_dir / "api.token").exists()


# -- serve-model -------------------------------------------------------------------------------------------------------


class Served:
    """A `msearchd serve-model` process; its port is told by its log."""

    def __init__(self, home, *options):
        self.home = home
        self.log = home.home / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_DIE_WITH_US, sys.executable, "-m", "msearchd", "serve-model", "--port", "0", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=home.environment(), start_new_session=True,
            )  # fmt: skip

    def event(self, name, *, deadline_s=90):
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            for line in self.log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("event") == name:
                        return event
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    @property
    def url(self):
        return f"http://127.0.0.1:{self.event('api listening')['sockets'][0][1]}"

    def health(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=30) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@contextlib.contextmanager
def serve_model(*options):
    with daemon_home() as home:
        served = Served(home, *options)
        try:
            yield served
        finally:
            if served.process.poll() is None:
                served.process.kill()
            served.process.wait()


def test_one_model_is_served_until_it_is_told_to_stop():
    with serve_model("--model-path", MINILM, "--task-type", "embedding", "--device", "cpu") as served:
        assert served.health() == 503  # it imports torch for seconds yet
        served.event("serving")
        assert served.health() == 200
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
            raw = client.embeddings.with_raw_response.create(
                model="all-minilm-l6-v2", input=TEXTS, encoding_format="base64"
            )
            rows = [item["embedding"] for item in json.loads(raw.content)["data"]]
            assert_means_what_it_says([struct.unpack("<384f", base64.b64decode(row)) for row in rows])
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0
        assert "Traceback" not in served.log.read_text()
        assert served.home.processes_gone(deadline_s=5), served.home.processes()


def test_a_service_killed_at_once_leaves_no_worker_behind():
    with serve_model("--model-path", MINILM, "--task-type", "embedding", "--device", "cpu") as served:
        served.event("serving")
        assert len(served.home.processes()) > 1
        os.kill(served.process.pid, signal.SIGKILL)
        assert served.home.processes_gone(deadline_s=10), served.home.processes()


def post(url, body):
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_a_clip_model_finds_pictures_by_words(tiny_clip):
    captions = ["red circle", "blue square", "green triangle", "yellow cross"]
    with serve_model("--model-path", str(tiny_clip), "--task-type", "embedding", "--name", "clip") as served:
        served.event("serving")
        uris = [as_uri(draw(caption, seed=77)) for caption in captions]
        # Words and pictures in one request, as they come.
        reply = post(f"{served.url}/v1/embeddings", {"model": "clip", "input": [*uris, *captions]})
        vectors = [item["embedding"] for item in reply["data"]]
        pictures, words = vectors[:4], vectors[4:]
        for number, text in enumerate(words):
            best = max(range(4), key=lambda place: dot(text, pictures[place]))
            assert best == number, captions[number]
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{served.url}/v1/embeddings", {"input": "data:image/png;base64,bm8gcGljdHVyZQ=="})
        with refused.value as answer:
            assert answer.code == 400
            assert "input 0 is no picture" in json.load(answer)["error"]["message"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_clap_model_finds_sounds_by_words(tiny_clap, tmp_path):
    with serve_model("--model-path", str(tiny_clap), "--task-type", "embedding", "--name", "clap") as served:
        served.event("serving")
        inputs = []
        for number, caption in enumerate(sounds.CAPTIONS):
            file = tmp_path / f"{number}.wav"
            sounds.write_wav(file, sounds.make(caption, seed=20_000, seconds=4.0))
            inputs.append({"audio": "data:audio/wav;base64," + base64.b64encode(file.read_bytes()).decode()})
        reply = post(f"{served.url}/v1/embeddings", {"model": "clap", "input": [*inputs, *sounds.CAPTIONS]})
        vectors = [item["embedding"] for item in reply["data"]]
        heard, words = vectors[: len(inputs)], vectors[len(inputs) :]
        found = [max(range(len(heard)), key=lambda place: dot(text, heard[place])) for text in words]
        right = sum(best == number for number, best in enumerate(found))
        assert right >= 0.9 * len(found), found


def as_uri(picture):
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def test_a_cross_encoder_puts_documents_in_order(tiny_cross):
    dice = random.Random(5)
    with serve_model(
        # auto: where infinity cannot read its tokenizer, the next engine can
        "--model-path",
        str(tiny_cross),
        "--task-type",
        "rerank",
    ) as served:
        served.event("serving")
        right = 0
        for _ in range(10):
            query, good = pair_of(dice, is_relevant=True)
            others = [text for text in (pair_of(dice, is_relevant=False)[1] for _ in range(12)) if query not in text]
            reply = post(f"{served.url}/v1/rerank", {"query": query, "documents": [*others[:5], good], "top_n": 2})
            first, second = reply["results"]
            assert 0 <= second["relevance_score"] <= first["relevance_score"] <= 1
            right += first["index"] == 5
        assert right >= 9
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{served.url}/v1/embeddings", {"input": "x"})
        with refused.value as answer:
            assert answer.code == 400


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--model-path", "/nowhere", "--task-type", "embedding"], "/nowhere"),
        (["--model-path", MINILM, "--task-type", "embedding", "--host", "0.0.0.0"], "--api-key-file"),
        (["--model-path", MINILM, "--task-type", "embedding", "--api-key-file", "/nowhere"], "cannot be read"),
        (["--model-path", MINILM, "--task-type", "embedding", "--host", "not an address"], "write it like"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_ends_with_78(options, sentence):
    with serve_model(*options) as served:
        assert served.process.wait(60) == 78
        assert sentence in served.log.read_text()
        assert "Traceback" not in served.log.read_text()
