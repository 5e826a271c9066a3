"""ColPali through infinity: a tiny random model of the real class, in infinity's own environment, beside colpali-engine's."""

import json
import pickle
import struct

import pytest
from inference_fakes import cosine
from page_models import COLPALI, INFINITY, REPOSITORY, SHIMMED, has_pages, make, run_in
from tiny_models import drawings

from msearchd import errors
from msearchd.aio.child import Limits
from msearchd.domain.sample import Pair, Picture, Sound
from msearchd.domain.space import ModelKey
from msearchd.inference import roster
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.inference.worker.engines import infinity_pages
from msearchd.settings.model import EmbeddingModel, InferenceSettings

pytestmark = pytest.mark.timeout(300)
needs_infinity = pytest.mark.skipif(
    not has_pages(INFINITY), reason="infinity's environment has no colpali-engine: type `make infinity`"
)
needs_colpali = pytest.mark.skipif(not has_pages(COLPALI), reason="no colpali environment: type `make engines`")
PAGES = ModelKey("pages")
TEXTS = ["an invoice of the ferry", "x", "Where is it? <image> <bos> <pad>", "", "grüße 東京", "word " * 900]
ROW = 128 * 4


def drawn(width, height):
    image = drawings.draw("red circle", seed=3, size=(width, height))
    return Picture(width, height, image.convert("RGB").tobytes())


#: The first is as large as the model looks at: nothing is resized.
PICTURES = [drawn(56, 56), drawn(200, 120), drawn(60, 90)]
CALLS = {
    "questions": (TEXTS, "query"),
    "questions backwards": (TEXTS[::-1], "query"),
    "question alone": (TEXTS[1:2], "query"),
    "passages": (TEXTS[:2], "document"),
    "pages": (PICTURES, "document"),
    "page alone": (PICTURES[1:2], "document"),
    "traps": (["http://127.0.0.1:9/picture.png", "/etc/hostname", __file__], "query"),
    "sound": ([Sound(48_000, bytes(400))], "document"),
    "pair": ([Pair("a", "b")], "query"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make(INFINITY, tmp_path_factory.mktemp("pages"), "colpali") / "colpali"


def answers(python, engine, folder, place, *file):
    place.mkdir()
    (place / "orders").write_bytes(pickle.dumps({"m": {"serves": "page", "folder": str(folder), "calls": CALLS}}))
    probe = REPOSITORY / "tests" / "inference_kinds_probe.py"
    run_in(python, probe, REPOSITORY, engine, place / "orders", place / "results", *file)
    return pickle.loads((place / "results").read_bytes())["m"]


@pytest.fixture(scope="module")
def infinity(folder, tmp_path_factory):
    return answers(INFINITY, "infinity", folder, tmp_path_factory.mktemp("i") / "infinity")


def vectors(item):
    return [item[at : at + ROW] for at in range(0, len(item), ROW)]


def alike(one, other, least=0.9999):
    return len(one) == len(other) and all(
        cosine(a, b) >= least for a, b in zip(vectors(one), vectors(other), strict=True)
    )


@needs_infinity
def test_it_reads_pages_and_questions_with_many_vectors_each(infinity):
    expected = {"dim": 128, "kinds": ("text", "image"), "multi": True, "max_tokens": 512}
    assert infinity["facts"] | expected == infinity["facts"]
    assert infinity["calls"]["pages"]["counts"] == [38, 38, 38]  # 16 patches, two marks, the model's 20 tokens
    assert infinity["calls"]["questions"]["counts"][1] == 12
    assert max(infinity["calls"]["questions"]["counts"]) <= 512 + 16


@needs_infinity
def test_no_row_is_padding_and_every_row_has_length_one(infinity):
    for label, answer in infinity["calls"].items():
        for row in (vector for item in answer.get("rows", []) for vector in vectors(item)):
            numbers = struct.unpack("<128f", row)
            assert sum(number * number for number in numbers) == pytest.approx(1.0, abs=1e-4), label


@needs_infinity
def test_a_sample_has_the_same_rows_in_any_company_and_order(infinity):
    calls = infinity["calls"]
    assert alike(calls["question alone"]["rows"][0], calls["questions"]["rows"][1])
    assert alike(calls["page alone"]["rows"][0], calls["pages"]["rows"][1])
    for one, other in zip(calls["questions"]["rows"], calls["questions backwards"]["rows"][::-1], strict=True):
        assert alike(one, other)


@needs_infinity
def test_a_passage_is_no_question(infinity):
    assert infinity["calls"]["passages"]["counts"] < infinity["calls"]["questions"]["counts"][:2]


@needs_infinity
def test_nothing_is_opened_and_other_kinds_are_refused(infinity):
    for label, answer in infinity["calls"].items():
        assert answer["touched"] == [], label
    assert "text and image" in infinity["calls"]["sound"]["error"]
    assert "text and image" in infinity["calls"]["pair"]["error"]


@needs_infinity
def test_a_poisoned_item_raises_and_the_engine_goes_on(infinity):
    assert set(infinity["poison"].values()).isdisjoint({"nothing raised"})
    for label, answer in infinity["calls"].items():
        for one, other in zip(answer.get("rows", []), infinity["after poison"][label].get("rows", []), strict=True):
            assert alike(one, other), label


@needs_infinity
@needs_colpali
def test_the_same_weights_give_the_rows_of_colpalis_own_engine(infinity, folder, tmp_path):
    other = answers(COLPALI, "colpali", folder, tmp_path / "colpali", SHIMMED)
    for label in ("questions", "passages"):
        for index, (one, two) in enumerate(
            zip(infinity["calls"][label]["rows"], other["calls"][label]["rows"], strict=True)
        ):
            assert alike(one, two), (label, index)
        assert infinity["calls"][label]["lengths"] == other["calls"][label]["lengths"]
    ours, theirs = infinity["calls"]["pages"]["rows"], other["calls"]["pages"]["rows"]
    assert alike(ours[0], theirs[0])
    for one, two in zip(ours[1:], theirs[1:], strict=True):  # resized by Pillow here, by torchvision there
        assert alike(one, two, least=0.999)
    assert infinity["calls"]["pages"]["lengths"] == other["calls"]["pages"]["lengths"]


@needs_infinity
async def test_pages_and_questions_go_through_pool_and_wire(folder, tmp_path):
    model = EmbeddingModel(name=PAGES, source=str(folder), serves="page", engine="infinity", device="cpu", threads=1)
    settings = InferenceSettings(models=(model,), text_model="", page_model=PAGES)
    pool = Pool(settings, limits=Limits(), chunking="c", state_dir=tmp_path, uses_forkserver=False)
    try:
        pages = await pool.embed(PICTURES, model=PAGES, role=Role.DOCUMENT, lane=Lane.INTERACTIVE, deadline_s=100)
        question = await pool.embed(["x"], model=PAGES, role=Role.QUERY, lane=Lane.INTERACTIVE, deadline_s=100)
        space = await pool.space(PAGES)
    finally:
        await pool.close()
    assert space.multi
    assert (tuple(pages.rows), tuple(question.rows)) == ((38, 38, 38), (12,))


def config(place, name):
    (place / "config.json").write_text(json.dumps({"architectures": [name]}))
    return place


@pytest.mark.parametrize("name", ["BertModel", "CLIPModel", ""])
def test_a_model_of_another_library_needs_no_colpali_engine(tmp_path, name):
    assert infinity_pages.require(config(tmp_path, name)) is False


@pytest.mark.parametrize(
    ("name", "engine"),
    [("ColQwen2", "colpali"), ("ColQwen2_5Omni", "colpali"), ("ColPaliForRetrieval", "sentence_transformers")],
)
def test_a_page_model_that_infinity_does_not_know_is_told_with_the_engine_that_does(tmp_path, name, engine):
    with pytest.raises(errors.Misconfigured, match=name) as caught:
        infinity_pages.require(config(tmp_path, name))
    assert (caught.value.key, engine in caught.value.hint) == ("engine:infinity", True)


def test_without_colpali_engine_the_line_to_type_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(infinity_pages.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(errors.Misconfigured, match="package colpali-engine") as caught:
        infinity_pages.require(config(tmp_path, "ColPali"))
    assert "msearchd engines install infinity" in caught.value.hint


@pytest.mark.parametrize(
    ("found", "is_right"), [("0.3.7", 0), ("0.3.8", 1), ("0.3.13", 1), ("0.3.14", 0), ("0.3.18", 0)]
)
def test_a_colpali_engine_that_is_too_new_or_too_old_is_told(tmp_path, monkeypatch, found, is_right):
    monkeypatch.setattr(infinity_pages.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(infinity_pages, "version", lambda _name: found)
    if is_right:
        assert infinity_pages.require(config(tmp_path, "ColPali")) is True
        return
    with pytest.raises(errors.Misconfigured, match=f"colpali-engine {found}.*0.3.8 to 0.3.13"):
        infinity_pages.require(config(tmp_path, "ColPali"))


def test_auto_takes_colpalis_own_engine_first_and_infinity_for_colpali_alone():
    assert roster.automatic("page", architecture="ColPali") == ("colpali", "infinity")
    assert roster.automatic("page", architecture="ColQwen2") == ("colpali",)
    assert "infinity" in roster.serving("page")
