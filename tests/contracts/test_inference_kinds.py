"""One suite over engine x kind of sample, each engine in its own interpreter, with tiny models that were trained."""

import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from inference_fakes import cosine
from tiny_models import drawings, sounds

from msearchd.domain.sample import Pair, Picture, Sound
from msearchd.inference import environments
from msearchd.inference.sparse_form import LEAST_SHARE, MOST_ENTRIES

REPOSITORY = Path(__file__).parents[2]
ST, INFINITY = "sentence_transformers", "infinity"
SPARSE = ("sparse", "lookup")
SERVED = [(engine, model) for engine in (ST, INFINITY) for model in ("clip", "clap", "cross", "text")]
SERVED += [(ST, model) for model in ("late", *SPARSE)]
#: Texts that a multimodal model's library takes for media, were they bare strings.
TRAPS = [
    "http://127.0.0.1:9/picture.png",
    "/etc/hostname",
    "file:///etc/passwd",
    __file__,
    "data:image/png;base64,AAAA",
]
SPARSE_PASSAGES = ["the ferry", "an oven and a garden", "a letter", "snow in the valley", "school bridge wheel stamp"]
PAIRS = [("ferry", "snow ferry island"), ("ferry", "oven garden"), ("oven", "oven garden letter"), ("oven", "snow")]


def picture(caption, seed, size=(96, 72)):
    image = drawings.draw(caption, seed=seed, size=size)
    return Picture(image.width, image.height, image.tobytes())


def sound(caption, seed, *, seconds=3.0, rate=48_000):
    return Sound(rate, sounds.make(caption, seed=seed, seconds=seconds).tobytes())


def calls_of_media(captions, samples, one_by_one):
    return {
        "captions": (list(captions), "query"),
        "captions backwards": (list(reversed(captions)), "query"),
        "long": (["red low " * 400, "x"], "query"),
        "odd": (["", " ", "grüße 東京 🚢", "\x00"], "query"),
        "traps": (TRAPS, "query"),
        "samples": (samples, "document"),
        **{f"alone {index}": ([samples[index]], "document") for index in one_by_one},
    }


def orders(folders):
    pictures = [picture(caption, 50_000 + row) for row in range(3) for caption in drawings.CAPTIONS]
    heard = [sound(caption, 50_000 + row, seconds=1.5 + row) for row in range(3) for caption in sounds.CAPTIONS]
    return {
        "clip": {
            "serves": "image",
            "calls": calls_of_media(drawings.CAPTIONS, pictures, (0, 7))
            | {
                "odd pictures": ([Picture(1, 1, b"abc"), Picture(3, 3, b"abc" * 9), Picture(1, 4000, b"abc" * 4000)], "document"),
                "sizes": ([picture("red circle", 1, (32, 32)), picture("red circle", 1, (900, 700))], "document"),
            },
        },
        "clap": {
            "serves": "audio",
            "calls": calls_of_media(sounds.CAPTIONS, heard, (0, 5))
            | {
                "one sample": ([Sound(48_000, bytes(4))], "document"),
                "ten seconds": ([sound("clicks", 1, seconds=10.0)], "document"),
                "too long": ([sound("clicks", 1, seconds=10.1)], "document"),
                "other rate": ([sound("clicks", 1, rate=16_000)], "document"),
                "no sound": ([Sound(48_000, b"")], "document"),
                "no number": ([Sound(48_000, struct.pack("<f", float("nan")) * 100)], "document"),
            },
        },
        "cross": {
            "serves": "rerank",
            "calls": {
                "pairs": ([Pair(*pair) for pair in PAIRS], "query"),
                "pairs backwards": ([Pair(*pair) for pair in reversed(PAIRS)], "query"),
                "alone 0": ([Pair(*PAIRS[0])], "query"),
                "odd": ([Pair("", ""), Pair("ferry", ""), Pair("ferry", "oven " * 500), Pair("ferry " * 200, "x")], "query"),
                "traps": ([Pair(trap, other) for trap, other in zip(TRAPS, reversed(TRAPS), strict=True)], "query"),
            },
        },
        "text": {
            "serves": "text",
            "calls": {
                "captions": (["ferry island", "oven", "a bank in the valley"], "query"),
                "captions backwards": (["a bank in the valley", "oven", "ferry island"], "query"),
                "alone 0": (["ferry island"], "query"),
                "odd": (["", " ", "grüße 東京 🚢", "word " * 900], "document"),
                "traps": (TRAPS, "query"),
            },
        },
        "late": {
            "serves": "text",
            "calls": {
                "captions": (["ferry island", "oven", "a bank in the valley"], "query"),
                "captions backwards": (["a bank in the valley", "oven", "ferry island"], "query"),
                "alone 0": (["ferry island"], "query"),
                "odd": (["", "grüße 東京 🚢", "oven " * 900], "document"),
                "traps": (TRAPS, "query"),
            },
        },
    } | {
        model: {
            "serves": "sparse",
            "calls": {
                "captions": (["ferry island", "oven", "a bank in the valley"], "query"),
                "captions backwards": (["a bank in the valley", "oven", "ferry island"], "query"),
                "alone 0": (["ferry island"], "query"),
                "passages": (SPARSE_PASSAGES, "document"),
                "odd": (["", " ", "grüße 東京 🚢", "oven " * 900], "document"),
                "traps": (TRAPS, "query"),
            },
        }
        for model in SPARSE
    } | {
        # What must be refused: asked for the wrong thing, or not whole.
        "clip for sound": {"serves": "audio", "folder": folders["clip"], "calls": {}},
        "clip for pairs": {"serves": "rerank", "folder": folders["clip"], "calls": {}},
        "text for pages": {"serves": "page", "folder": folders["text"], "calls": {}},
        "text for sparse": {"serves": "sparse", "folder": folders["text"], "calls": {}},
        "sparse for text": {"serves": "text", "folder": folders["sparse"], "calls": {}},
        "empty": {"serves": "image", "folder": folders["empty"], "calls": {}},
    }  # fmt: skip


def interpreter(engine):
    if engine == ST:
        return sys.executable
    if not (python := environments.find_infinity_python()):
        pytest.fail("infinity-emb's environment is missing: type `make infinity`")
    return python


def probe(engine, wanted, folder, *, python="", **environment):
    """What *engine* answers; in a process of its own."""
    (folder / "orders.pickle").write_bytes(pickle.dumps(wanted))
    command = [python or interpreter(engine), "-W", "ignore", str(REPOSITORY / "tests" / "inference_kinds_probe.py")]
    command += [str(REPOSITORY), engine, str(folder / "orders.pickle"), str(folder / "results.pickle")]
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    quiet["INFINITY_HOME"] = str(Path(tempfile.gettempdir()) / "msearchd-test-infinity")
    done = subprocess.run(
        command, env=os.environ | quiet | environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads((folder / "results.pickle").read_bytes())


@pytest.fixture(scope="module")
def models(tiny_clip, tiny_clap, tiny_cross, tiny_text, tiny_late, tiny_sparse, tiny_lookup, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    (empty / "config.json").write_text((tiny_clip / "config.json").read_text())
    folders = {
        "clip": tiny_clip,
        "clap": tiny_clap,
        "cross": tiny_cross,
        "text": tiny_text,
        "late": tiny_late,
        "sparse": tiny_sparse,
        "lookup": tiny_lookup,
        "empty": empty,
    }
    folders = {name: str(folder) for name, folder in folders.items()}
    wanted = orders(folders)
    return {name: {"folder": folders.get(name, "")} | order for name, order in wanted.items()}


@pytest.fixture(scope="module")
def st(models, tmp_path_factory):
    return probe(ST, models, tmp_path_factory.mktemp("st"))


@pytest.fixture(scope="module")
def infinity(models, tmp_path_factory):
    return probe(
        INFINITY,
        {name: it for name, it in models.items() if name not in {"late", *SPARSE, "sparse for text"}},
        tmp_path_factory.mktemp("infinity"),
    )


@pytest.fixture
def answers(engine, request):
    return request.getfixturevalue("st" if engine == ST else "infinity")


@pytest.fixture
def calls(answers, model):
    assert "error" not in answers[model], answers[model]
    return answers[model]["calls"]


each = pytest.mark.parametrize(("engine", "model"), SERVED)
each_engine = pytest.mark.parametrize("engine", [ST, INFINITY])


def floats(row):
    return struct.unpack(f"<{len(row) // 4}f", row)


def entries(row):
    return dict(struct.iter_unpack("<If", row))


def alike(one, other, *, model=""):
    if model in SPARSE:
        return entries(one) == pytest.approx(entries(other), abs=1e-4)
    if model == "cross":
        return floats(one) == pytest.approx(floats(other), abs=1e-4)
    dim = 32 if len(one) % 256 else 64
    assert len(one) == len(other)
    return all(cosine(one[at : at + 4 * dim], other[at : at + 4 * dim]) >= 0.9999 for at in range(0, len(one), 4 * dim))


@each
def test_facts_say_what_the_model_reads(answers, model):
    facts = answers[model]["facts"]
    kinds = {"clip": ("text", "image"), "clap": ("text", "audio"), "cross": ("pair",)}.get(model, ("text",))
    assert facts["kinds"] == kinds
    assert facts["dim"] == {"cross": 1, "late": 32, "sparse": 222, "lookup": 222}.get(model, 64)
    assert facts["multi"] is (model == "late")
    assert facts["sparse"] is (model in SPARSE)


@each
def test_every_row_has_length_one_and_no_row_is_padding(answers, calls, model):
    dim = answers[model]["facts"]["dim"]
    if model in SPARSE:
        pytest.skip("weighted words have no length of one")
    for label, answer in calls.items():
        for row in answer.get("rows", []):
            assert len(row) % (4 * dim) == 0
            if model == "cross":
                assert len(row) == 4
                continue
            for at in range(0, len(row), 4 * dim):
                vector = row[at : at + 4 * dim]
                assert cosine(vector, vector) == pytest.approx(1.0, abs=1e-4), label


@each
def test_rows_are_in_the_order_of_their_samples(calls, model):
    label = "pairs" if model == "cross" else "captions"
    for one, other in zip(calls[label]["rows"], reversed(calls[f"{label} backwards"]["rows"]), strict=True):
        assert alike(one, other, model=model)


@each
def test_a_sample_has_the_same_row_alone_and_in_company(calls, model):
    company = calls["pairs" if model == "cross" else "samples" if model in {"clip", "clap"} else "captions"]["rows"]
    alone = [label for label in calls if label.startswith("alone")]
    for label in alone:
        assert alike(calls[label]["rows"][0], company[int(label.split()[1])], model=model)


@each
def test_empty_odd_and_endless_texts_get_rows_like_others(calls):
    assert len(calls["odd"]["rows"]) >= 3
    assert all("rows" in calls[label] for label in ("odd", "traps"))


@each
def test_a_text_that_looks_like_a_path_or_an_address_opens_nothing(calls):
    for label, answer in calls.items():
        assert answer["touched"] == [], label


@each
def test_a_poisoned_item_raises_and_leaves_the_engine_as_it_was(answers, calls, model):
    assert "nothing raised" not in answers[model]["poison"].values()
    for label, answer in calls.items():
        after = answers[model]["after poison"][label]
        assert after.get("error") == answer.get("error")
        for one, other in zip(answer.get("rows", []), after.get("rows", []), strict=True):
            assert alike(one, other, model=model)


@pytest.mark.parametrize("model", ["clip", "clap", "cross", "text"])
def test_the_same_weights_give_the_same_rows_in_every_engine(st, infinity, model):
    for label, answer in st[model]["calls"].items():
        other = infinity[model]["calls"][label]
        assert answer.get("error", "").split(":")[0] == other.get("error", "").split(":")[0], (label, answer, other)
        for index, (one, two) in enumerate(zip(answer.get("rows", []), other.get("rows", []), strict=True)):
            assert alike(one, two, model=model), (label, index)


@each_engine
@pytest.mark.parametrize(
    ("model", "captions", "least"), [("clip", drawings.CAPTIONS, 0.95), ("clap", sounds.CAPTIONS, 0.9)]
)
def test_a_caption_finds_its_own_picture_or_sound(answers, model, captions, least):
    asked, found = (answers[model]["calls"][label]["rows"] for label in ("captions", "samples"))
    best = [max(range(len(found)), key=lambda at, row=row: cosine(row, found[at])) % len(captions) for row in asked]
    assert sum(place == index for index, place in enumerate(best)) / len(captions) >= least


@pytest.mark.parametrize("model", SPARSE)
def test_entries_of_sparse_rows_ascend_and_are_the_librarys_own(st, models, model, tmp_path):
    calls = st[model]["calls"]
    told = library(models[model]["folder"], {label: models[model]["calls"][label] for label in calls}, tmp_path)
    for label, answer in calls.items():
        for index, (row, wanted) in enumerate(zip(answer["rows"], told[label], strict=True)):
            dims = [dimension for dimension, _ in struct.iter_unpack("<If", row)]
            assert dims == sorted(set(dims)), (label, index)
            assert len(dims) <= MOST_ENTRIES
            heaviest = max(wanted.values(), default=0.0)
            kept = {dimension: weight for dimension, weight in wanted.items() if weight > heaviest * LEAST_SHARE}
            assert entries(row) == pytest.approx(kept, abs=1e-4), (label, index)


def library(folder, calls, place):
    """What SparseEncoder gives itself, unpruned: {label: [{dimension: weight}, ...]}."""
    script = """
import pickle, sys
from sentence_transformers import SparseEncoder
folder, calls = pickle.load(open(sys.argv[1], "rb"))
model, told = SparseEncoder(folder, device="cpu", local_files_only=True), {}
for label, (texts, role) in calls.items():
    dense = (model.encode_query if role == "query" else model.encode_document)(texts).to_dense()
    told[label] = [{int(d): float(row[d]) for d in row.nonzero()[:, 0]} for row in dense]
pickle.dump(told, open(sys.argv[2], "wb"))
"""
    (place / "calls.pickle").write_bytes(pickle.dumps((folder, calls)))
    command = [sys.executable, "-W", "ignore", "-c", script, str(place / "calls.pickle"), str(place / "told.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return pickle.loads((place / "told.pickle").read_bytes())


def test_a_word_finds_the_passage_with_its_kin(st):
    calls = st["sparse"]["calls"]
    asked, held = entries(calls["alone 0"]["rows"][0]), [entries(row) for row in calls["passages"]["rows"]]
    scores = [sum(weight * passage.get(word, 0.0) for word, weight in asked.items()) for passage in held]
    assert max(scores) == scores[0] > 0


@each_engine
def test_a_reranker_scores_the_text_that_answers_above_the_others(answers):
    scores = [floats(row)[0] for row in answers["cross"]["calls"]["pairs"]["rows"]]
    assert min(scores[0], scores[2]) > 0 > max(scores[1], scores[3])


@each_engine
def test_the_size_of_a_picture_changes_little(answers):
    small, large = answers["clip"]["calls"]["sizes"]["rows"]
    assert cosine(small, large) > 0.8
    assert len(answers["clip"]["calls"]["odd pictures"]["rows"]) == 3


@each_engine
@pytest.mark.parametrize(
    ("label", "word"), [("too long", "10 s"), ("other rate", "48000"), ("no sound", "empty"), ("no number", "number")]
)
def test_a_sound_that_the_model_would_mishear_is_refused_with_a_sentence(answers, label, word):
    answer = answers["clap"]["calls"][label]
    assert answer["error"].startswith("BadAsset: ")
    assert word in answer["error"]


@each_engine
def test_costs_are_in_the_unit_of_the_kind(answers):
    assert answers["clip"]["calls"]["samples"]["lengths"][0] == 48 * 48 // 256
    assert answers["clap"]["calls"]["samples"]["lengths"][0] == 1000
    assert answers["clip"]["calls"]["captions"]["lengths"][0] == 4  # <start> red circle <end>
    assert answers["cross"]["calls"]["alone 0"]["lengths"] == [7]


@each_engine
@pytest.mark.parametrize("model", ["clip for sound", "clip for pairs", "text for pages", "text for sparse", "empty"])
def test_a_model_that_cannot_do_what_it_is_asked_for_is_a_setting_to_correct(answers, model):
    assert answers[model]["code"] == "misconfigured"
    assert answers[model]["hint"]


def test_a_sparse_model_is_no_dense_one(st):
    assert st["sparse for text"]["code"] == "misconfigured"
    assert "sparse_model" in st["sparse for text"]["hint"]


def test_another_version_of_the_library_is_named_with_the_line_to_type(models, tmp_path):
    answer = probe(ST, {"clip": models["clip"]}, tmp_path, python=interpreter(INFINITY))["clip"]
    assert "sentence-transformers 3" in answer["error"]
    assert "pip install" in answer["hint"]


def test_a_torchvision_that_does_not_match_is_named_with_the_line_to_type(models, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    info = tmp_path / "torchvision-0.28.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    answer = probe(ST, {"clip": models["clip"]}, tmp_path, PYTHONPATH=str(tmp_path))["clip"]
    assert "torchvision do not match" in answer["error"]
    assert "pip uninstall torchvision" in answer["hint"]
