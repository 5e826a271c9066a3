"""Learned words with a real daemon: a sparse model beside a dense one, on real files."""

import json
import time

import pytest
from index_audit import audit
from models_home import models_home
from tiny_models.cross import WORDS

pytestmark = pytest.mark.timeout(300)

#: Pairs of kin, as the tiny model learned them: one word stands in a file, the other one is asked.
KIN = list(zip(WORDS[0:-1:2], WORDS[1::2], strict=False))


@pytest.fixture
def home(tiny_text, tiny_sparse):
    dense = {"name": "tiny", "source": str(tiny_text), "engine": "sentence_transformers"}
    sparse = {"name": "splade", "source": str(tiny_sparse), "serves": "sparse"}
    with models_home(dense, sparse, inference={"text_model": "tiny"}) as home:
        yield home


def with_files(home):
    for number, (one, _) in enumerate(KIN[:10]):
        (home.files / f"note_{number}.txt").write_text(f"the {one}\n")
    home.add(home.files)
    home.sync()


def asked(home, text, **more):
    reply = home.api.post("/search", {"text": text, "limit": 3, "wait_s": 60.0, **more}, timeout_s=90)
    assert not reply["missing"], reply["missing"]
    return reply


def learned(hit):
    """Its rank among learned words, 0 where that list does not have it."""
    return next((rank["rank"] for rank in hit["ranks"] if rank["list"] == "learned words"), 0)


def assert_found_by_kin(home):
    for number, (_, other) in list(enumerate(KIN))[:10:3]:
        reply = asked(home, other)
        [own] = [hit for hit in reply["hits"] if hit["path"].endswith(f"note_{number}.txt")]
        assert learned(own) == 1, (other, reply)
        assert {rank["list"] for rank in own["ranks"]}.isdisjoint({"words", "names"})
        assert [one["candidates"] > 0 for one in reply["lists"] if one["list"] == "learned words"] == [True]


def spaces(home):
    return {row["modality"]: row for row in home.api.get("/spaces")["spaces"]}


def test_a_text_is_found_by_the_kin_of_its_words_also_after_a_restart_and_a_reset(home):
    home.start()
    with_files(home)
    assert_found_by_kin(home)
    shown = home.msearch("search", KIN[0][1], "--limit", "1")
    assert "learned words #1" in shown.stdout, shown.stdout
    row = spaces(home)["sparse"]
    assert (row["model"], row["phase"], row["contents"], row["points"]) == ("splade", "serving", 10, 10)
    models = {row["name"]: row for row in home.api.get("/models")["models"]}
    assert (models["splade"]["serves"], models["splade"]["dim"], models["splade"]["samples"]) == (
        "sparse",
        row["dim"],
        10,
    )
    assert "splade" in home.msearch("models").stdout
    assert row["name"] in home.msearch("spaces").stdout
    assert home.api.post("/system/verify", {}, timeout_s=60)["is_clean"]
    home.stop()

    home.start()
    home.sync()
    assert_found_by_kin(home)
    like = home.api.post("/search", {"like": str(home.files / "note_0.txt"), "limit": 3, "wait_s": 30.0}, timeout_s=60)
    assert "learned words" not in {one["list"] for one in like["lists"]}  # a file is compared in one space
    (home.files / "note_0.txt").write_text(f"the {KIN[9][0]} again\n")
    home.sync()
    assert {hit["path"].rpartition("/")[2] for hit in asked(home, KIN[9][1])["hits"] if learned(hit) in {1, 2}} == {
        "note_0.txt",
        "note_9.txt",
    }
    (home.files / "note_0.txt").unlink()
    home.sync()
    assert all(not hit["path"].endswith("note_0.txt") for hit in asked(home, KIN[9][1])["hits"])

    reset = home.msearch("reset", "index", "--yes")
    assert reset.returncode == 0, reset.stderr
    home.sync()
    row = spaces(home)["sparse"]
    assert (row["phase"], row["contents"]) == ("serving", 9)
    reply = asked(home, KIN[3][1])
    assert learned(reply["hits"][0]) == 1
    assert reply["hits"][0]["path"].endswith("note_3.txt")
    # The vector cache had them: what was thrown away is not computed again.
    assert {row["name"]: row["samples"] for row in home.api.get("/models")["models"]}["splade"] <= 1
    assert home.api.post("/system/verify", {}, timeout_s=60)["is_clean"]
    home.stop()
    assert [one for one in audit(home.data_dir) if not one.is_clean] == []


@pytest.mark.slow
def test_a_changed_sparse_model_is_built_beside_the_old_one_rolled_back_and_dropped(home):
    home.start()
    with_files(home)
    old = spaces(home)["sparse"]["name"]
    home.stop()
    home.models = (home.models[0], {**home.models[1], "max_tokens": 16})
    home.start()
    home.sync()
    rows = {row["name"]: row for row in home.api.get("/spaces")["spaces"] if row["modality"] == "sparse"}
    [new] = rows.keys() - {old}
    assert (rows[old]["phase"], rows[new]["phase"]) == ("serving", "waiting")
    assert_found_by_kin(home)  # by the old one
    plan = json.loads(home.msearch("model", "plan", "splade", "--json").stdout)
    assert (plan["space"], plan["samples"], plan["modality"]) == (new, 10, "sparse")
    assert plan["per_s"] > 0
    assert home.msearch("model", "switch", "splade", "--yes").returncode == 0
    deadline = time.monotonic() + 60
    while phase(home, new) != "serving":
        assert time.monotonic() < deadline, home.log_tail()
        time.sleep(0.1)
    assert_found_by_kin(home)
    rolled = home.msearch("model", "rollback", "sparse")
    assert rolled.returncode == 0, rolled.stderr
    assert (phase(home, old), phase(home, new)) == ("serving", "declined")
    assert_found_by_kin(home)
    assert home.api.post("/spaces/drop", {"space": new}, timeout_s=60)["name"] == new
    assert home.api.post("/system/verify", {}, timeout_s=60)["is_clean"]


def phase(home, name):
    return next((row["phase"] for row in home.api.get("/spaces")["spaces"] if row["name"] == name), "")


@pytest.mark.slow
def test_a_sparse_model_that_is_switched_off_leaves_the_rest_and_comes_back_without_inference(home):
    home.start()
    with_files(home)
    home.stop()
    home.settings["inference"]["sparse_model"] = ""
    home.start()
    home.sync()
    reply = asked(home, KIN[0][1])
    assert "learned words" not in {one["list"] for one in reply["lists"]}
    (home.files / "later.txt").write_text(f"the {KIN[10][0]}\n")
    home.sync()
    home.stop()
    home.settings["inference"]["sparse_model"] = "splade"
    home.start()
    home.sync()
    deadline = time.monotonic() + 60
    while spaces(home)["sparse"]["contents"] < 11:
        assert time.monotonic() < deadline, home.log_tail()
        time.sleep(0.1)
    assert {row["name"]: row["samples"] for row in home.api.get("/models")["models"]}["splade"] == 1
    [later] = [hit for hit in asked(home, KIN[10][1])["hits"] if hit["path"].endswith("later.txt")]
    assert learned(later) == 1
