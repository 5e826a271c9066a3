"""Page images with a real daemon and a tiny random ColPali; a change of an image and of a page model, end to end."""

import json
import shutil
from pathlib import Path

import media_corpus
import page_models
import pytest
from index_audit import audit
from models_home import models_home
from tiny_models import drawings

pytestmark = pytest.mark.timeout(600)
needs_pages = pytest.mark.skipif(
    not page_models.has_pages(page_models.INFINITY),
    reason="infinity's environment has no colpali-engine: `make infinity`",
)
#: Seeds from here on no model was trained on.
_HELD_OUT = 20_000
_COLOURS = ("red circle", "blue square", "green triangle")


@pytest.fixture(scope="module")
def page_folders(tmp_path_factory):
    return page_models.make(page_models.INFINITY, tmp_path_factory.mktemp("pages"), "colpali", "other")


def page_model(folder):
    return {"name": "pages", "source": str(folder), "serves": "page", "engine": "infinity", "threads": 1}


def ask(home, text, **more):
    """The answer of every list: a model that still loads is waited for."""
    replies = []

    def is_whole():
        replies.append(home.api.post("/search", {"text": text, "limit": 20, **more}, timeout_s=60))
        return not replies[-1]["missing"]

    home.until(is_whole)
    return replies[-1]


def pages_found(home):
    """File -> the page of its hit, of those that the page space gave; the best file first."""
    return {
        Path(hit["path"]).name: hit["page"]
        for hit in ask(home, "where is the ferry")["hits"]
        if any(rank["list"].startswith("pages") for rank in hit["ranks"])
    }


def asked_of(home, name):
    """The space of model *name* that answered, and how many places it gave."""
    return next(
        (one["list"], one["candidates"]) for one in ask(home, "red circle")["lists"] if one["list"].startswith(name)
    )


def is_clean(home):
    return home.api.post("/system/verify", {"repair": False}, timeout_s=120)["is_clean"]


@needs_pages
def test_a_pdf_is_found_by_its_page_images_and_stays_so_through_a_restart(page_folders):
    with models_home(page_model(page_folders / "colpali")) as home:
        (home.files / "three.pdf").write_bytes(
            media_corpus.pdf(("The ferry leaves.", "Bread and salt.", "An invoice."))
        )
        (home.files / "scan.pdf").write_bytes(media_corpus.scanned_pdf(("Ticket 17",)))
        (home.files / "note.txt").write_text("no page at all")
        home.start()
        home.add(home.files)
        home.sync(timeout_s=200)
        [space] = home.phases()
        assert home.samples() >= 4  # and one question later
        assert home.points() == 4
        found = pages_found(home)
        assert found.keys() == {"three.pdf", "scan.pdf"}
        assert found["scan.pdf"] == 1
        assert found["three.pdf"] in {1, 2, 3}
        assert asked_of(home, "pages") == (space, 4)  # every page is ranked; a file's best one is its hit
        assert space in home.explain(home.files / "three.pdf")["spaces"]
        assert is_clean(home)
        home.stop()

        home.start()
        home.sync(timeout_s=200)
        assert home.samples() == 0
        assert (home.phases(), home.points()) == ({space: "serving"}, 4)
        assert pages_found(home) == found
        assert is_clean(home)
        (home.files / "scan.pdf").unlink()
        home.sync(timeout_s=200)
        assert pages_found(home).keys() == {"three.pdf"}
        assert is_clean(home)
        home.stop()
        assert all(report.is_clean for report in audit(home.data_dir))


def changes_and_comes_back(home, name, other, check, *, count):
    """Plan, switch, roll back, switch, drop: *check* holds whichever of the two spaces answers."""
    [old] = home.phases()
    home.stop()
    home.models = ({**home.models[0], "source": str(other)},)
    home.start()
    home.sync(timeout_s=200)
    [new] = home.phases().keys() - {old}
    assert home.phases() == {old: "serving", new: "waiting"}
    check()
    assert asked_of(home, name) == (old, count)
    plan = json.loads(home.msearch("model", "plan", name, "--json").stdout)
    assert (plan["space"], plan["samples"], plan["serving"]) == (new, count, old)
    done = home.msearch("model", "switch", name, "--yes")
    assert done.returncode == 0, done.stderr
    home.until(lambda: home.phases() == {old: "kept", new: "serving"})
    assert asked_of(home, name) == (new, count)
    check()
    rolled = home.msearch("model", "rollback", home.models[0]["serves"])
    assert rolled.returncode == 0, rolled.stderr
    assert home.phases() == {old: "serving", new: "declined"}
    assert asked_of(home, name) == (old, count)
    check()
    assert home.msearch("model", "switch", new, "--yes").returncode == 0
    home.until(lambda: home.phases()[new] == "serving")
    assert home.msearch("model", "drop", old, "--yes").returncode == 0
    assert home.phases() == {new: "serving"}
    check()
    assert is_clean(home)
    home.stop()
    assert all(report.is_clean for report in audit(home.data_dir))


def turned(folder, place):
    """The same model with both towers turned by one rotation: as good, and no vector is near what it was."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, place)
    weights = load_file(place / "model.safetensors")
    names = ["visual_projection.weight", "text_projection.weight"]
    size = weights[names[0]].shape[0]
    rotation = np.linalg.qr(np.random.default_rng(7).normal(size=(size, size)))[0].astype(np.float32)
    save_file(weights | {name: rotation @ weights[name] for name in names}, place / "model.safetensors")
    return place


def test_a_changed_image_model_is_switched_to_rolled_back_and_dropped(tiny_clip, tmp_path):
    clip = {
        "name": "clip",
        "source": str(tiny_clip),
        "serves": "image",
        "engine": "sentence_transformers",
        "threads": 1,
    }
    with models_home(clip, extract={"ocr": False}) as home:
        for caption in _COLOURS:
            for seed in range(3):
                picture = drawings.draw(caption, seed=_HELD_OUT + seed, size=(160, 120))
                picture.save(home.files / f"{_COLOURS.index(caption)}{seed}.png")
        home.start()
        home.add(home.files)
        home.sync(timeout_s=200)

        def what_it_shows_is_found():
            for number, caption in enumerate(_COLOURS):
                hits = ask(home, caption, types=["image"])["hits"][:3]
                assert {Path(hit["path"]).name[0] for hit in hits} == {str(number)}, caption

        what_it_shows_is_found()
        changes_and_comes_back(home, "clip", turned(tiny_clip, tmp_path / "turned"), what_it_shows_is_found, count=9)


@pytest.mark.slow
@needs_pages
def test_a_changed_page_model_is_switched_to_rolled_back_and_dropped(page_folders):
    with models_home(page_model(page_folders / "colpali")) as home:
        (home.files / "three.pdf").write_bytes(
            media_corpus.pdf(("The ferry leaves.", "Bread and salt.", "An invoice."))
        )
        home.start()
        home.add(home.files)
        home.sync(timeout_s=200)

        def every_page_is_found():
            assert pages_found(home).keys() == {"three.pdf"}

        every_page_is_found()
        changes_and_comes_back(home, "pages", page_folders / "other", every_page_is_found, count=3)
