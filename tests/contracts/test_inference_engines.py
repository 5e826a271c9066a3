"""Every engine of text bi-encoders on torch, through pool and wire, with real weights (other kinds: test_inference_kinds)."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import pytest_asyncio
from inference_fakes import cosine, embed, model_folder, rows

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.space import ModelKey
from msearchd.inference import environments
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.inference.weights import find_weights
from msearchd.settings.model import EmbeddingModel, InferenceSettings

SOURCE = "sentence-transformers/all-MiniLM-L6-v2"
#: Those that load a checkpoint of torch; the others have suites beside this one.
TEXT_ENGINES = ("infinity", "sentence_transformers")
ENGINES = ("infinity", "sentence_transformers")
REPOSITORY = Path(__file__).parents[2]
PLAIN, PROMPTED, DAMAGED = ModelKey("plain"), ModelKey("prompted"), ModelKey("damaged")
TEXTS = [
    "The ferry to the North Sea island leaves at noon.",
    "Invoice no. 4711, payable within fourteen days.",
    "",
    "x",
    "  a text with spaces around it  \n",
    "grüße aus münchen, 東京タワー, привет 🚢",
    "a sentence that repeats itself. " * 200,
    "http://127.0.0.1:9/picture.png",
    "/etc/hostname",
    "def plan(lengths):\n    return sorted(lengths)\n",
    *(f"passage {number} " + "of a longer text " * (number * 7 % 30) for number in range(60)),
]
ASKED = [*TEXTS, "query: " + TEXTS[0], "passage: " + TEXTS[0]]

on_one_loop = pytest.mark.asyncio(loop_scope="module")  # the pool is made once per engine


def interpreter(engine: str) -> str:
    if engine != "infinity":
        return sys.executable
    if not (python := environments.find_infinity_python()):
        pytest.fail(
            "infinity-emb's environment is missing: type `make infinity`, or name one in $MSEARCHD_INFINITY_PYTHON"
        )
    return python


def pool_of(tmp_path, engine, *, python="", uses_forkserver=True) -> Pool:
    common = {"source": SOURCE, "engine": engine, "python": python, "threads": 1}
    damaged = model_folder(tmp_path, "damaged", dim=None, weights=b"not a safetensors file")
    models = (
        EmbeddingModel(name=PLAIN, **common),
        EmbeddingModel(name=PROMPTED, **common, query_prompt="query: ", document_prompt="passage: "),
        EmbeddingModel(name=DAMAGED, **common | {"source": str(damaged)}),
    )
    return Pool(
        InferenceSettings(models=models, text_model=PLAIN),
        limits=Limits(),
        chunking="contract",
        state_dir=tmp_path,
        uses_forkserver=uses_forkserver,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TEXT_ENGINES)
async def pool(request, tmp_path_factory):
    pool = pool_of(tmp_path_factory.mktemp("state"), request.param, python=interpreter(request.param))
    yield pool
    await pool.close()


@pytest.fixture(scope="module")
def reports():
    """What each engine does in its own interpreter, without the wire, when its inside fails (the probe beside us)."""
    script = Path(__file__).parents[1] / "inference_engine_probe.py"
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        "INFINITY_HOME": str(Path(tempfile.gettempdir()) / "msearchd-test-infinity"),
    }
    found = {}
    for engine in TEXT_ENGINES:
        command = [
            interpreter(engine),
            "-W",
            "ignore",
            str(script),
            str(REPOSITORY),
            engine,
            str(find_weights(SOURCE).folder),
        ]
        done = subprocess.run(
            command, env=env, input=json.dumps(ASKED), capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        found[engine] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def reference(reports):
    """What sentence-transformers' own encode() makes of TEXTS, and of the first one with a prompt before it."""
    return [bytes.fromhex(row) for row in reports["sentence_transformers"]["encoded"]]


@on_one_loop
async def test_vectors_are_those_of_the_models_own_encode(pool, reference):
    vectors = await embed(pool, TEXTS, model=PLAIN)
    assert vectors.dim == 384
    for text, row, wanted in zip(TEXTS, rows(vectors), reference, strict=False):
        assert cosine(row, wanted) >= 0.99999, text[:40]


@on_one_loop
async def test_every_vector_has_length_one(pool):
    for row in rows(await embed(pool, TEXTS, model=PLAIN)):
        assert cosine(row, row) == pytest.approx(1.0, abs=1e-5)


@on_one_loop
async def test_a_text_has_the_same_vector_alone_and_in_company(pool, reference):
    for index in (0, 6, 20):
        (alone,) = rows(await embed(pool, [TEXTS[index]], model=PLAIN, lane=Lane.INTERACTIVE, role=Role.QUERY))
        assert cosine(alone, reference[index]) >= 0.99999


@on_one_loop
async def test_order_is_kept_for_callers_that_share_batches(pool, reference):
    results = await asyncio.gather(*(embed(pool, [text], model=PLAIN) for text in reversed(TEXTS)))
    for result, wanted in zip(reversed(results), reference, strict=False):
        assert cosine(rows(result)[0], wanted) >= 0.99999


@on_one_loop
async def test_prompts_stand_before_questions_and_passages(pool, reference):
    question = await embed(pool, [TEXTS[0]], model=PROMPTED, role=Role.QUERY, lane=Lane.INTERACTIVE)
    passage = await embed(pool, [TEXTS[0]], model=PROMPTED, role=Role.DOCUMENT)
    assert cosine(rows(question)[0], reference[-2]) >= 0.99999
    assert cosine(rows(passage)[0], reference[-1]) >= 0.99999


@on_one_loop
async def test_file_names_that_are_no_unicode_do_not_harm(pool):
    vectors = await embed(pool, ["caf\udce9 \ud800", "next"], model=PLAIN)
    assert vectors.count == 2


@on_one_loop
async def test_engines_share_one_space(pool, tmp_path):
    space = await pool.space(PLAIN)
    other = pool_of(tmp_path, "sentence_transformers")
    assert space == await other.space(PLAIN)
    await other.close()


@on_one_loop
async def test_a_warm_worker_reports_what_runs(pool):
    await pool.preload(PLAIN)
    status = pool.snapshot().models[0]
    assert (status.state, status.device, status.dtype, status.dim) == ("ready", "cpu", "float32", 384)
    assert status.resident_bytes > 100 << 20


@pytest.mark.parametrize("engine", TEXT_ENGINES)
def test_an_error_inside_the_engine_is_raised_and_the_next_call_works(engine, reports):
    """infinity's threads die of any exception and its callers hang; ours must not."""
    report = reports[engine]
    assert report["first"] == report["after shortage"] == report["dim"] == 384
    assert "can't allocate memory" in report["shortage"]
    if engine == "infinity":
        assert "TypeError" in report["bad item"] or "ValueError" in report["bad item"]
        assert report["after bad item"] == 384


@on_one_loop
async def test_damaged_weights_are_a_setting_to_correct(pool):
    with pytest.raises(errors.Misconfigured) as caught:
        await embed(pool, ["a"], model=DAMAGED, deadline_s=60)
    assert "damaged" in str(caught.value)
    assert caught.value.hint


@on_one_loop
async def test_an_engine_that_is_not_installed_says_what_to_type(tmp_path):
    if environments.has_package(sys.executable, "infinity_emb"):
        pytest.skip("this interpreter has infinity-emb")
    pool = pool_of(tmp_path, "infinity", python=sys.executable, uses_forkserver=False)
    try:
        with pytest.raises(errors.Misconfigured) as caught:
            await embed(pool, ["a"], model=PLAIN, deadline_s=60)
        assert caught.value.key == "engine:infinity"
        assert "msearchd engines install infinity" in caught.value.hint
    finally:
        await pool.close()
