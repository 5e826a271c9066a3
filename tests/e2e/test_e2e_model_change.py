"""A change of model and the vector cache, with a real daemon and real (tiny) models."""

import contextlib
import json
import time

import pytest
from index_audit import audit
from models_home import models_home

pytestmark = pytest.mark.timeout(300)

FILES = 12


@pytest.fixture
def home(tiny_text):
    model = {"name": "tiny", "source": str(tiny_text), "engine": "sentence_transformers"}
    with models_home(model, inference={"text_model": "tiny"}) as home:
        yield home


def with_files(home, *, passages=1):
    for number in range(FILES):
        text = "\n\n".join(f"file {number} part {part} speaks of winter and the sea. " * 12 for part in range(passages))
        (home.files / f"{number}.txt").write_text(text)
    home.add(home.files)
    home.sync()


def changed(home, **more):
    """The same weights, cut off at another length: another fingerprint, another space."""
    home.models = ({**home.models[0], **more},)


def meaning(home):
    """Name of the space that answered, and how many passages it gave."""
    reply = home.api.post("/search", {"text": "winter sea", "wait_s": 60.0}, timeout_s=90)
    assert not reply["missing"], reply["missing"]
    return next((one["list"], one["candidates"]) for one in reply["lists"] if one["list"].startswith("tiny"))


def test_a_changed_model_is_planned_switched_rolled_back_and_dropped(home):
    home.start()
    with_files(home)
    [old] = home.phases()
    home.stop()
    changed(home, max_tokens=16)
    home.start()
    home.sync()
    [new] = home.phases().keys() - {old}
    assert home.phases() == {old: "serving", new: "waiting"}
    assert meaning(home) == (old, FILES)
    assert any("passages await" in sentence for sentence in home.status()["notices"])
    assert "passages await" in home.msearch("status").stdout
    (home.files / "later.txt").write_text("a later file about winter")
    home.sync()
    assert meaning(home) == (old, FILES + 1)

    plan = json.loads(home.msearch("model", "plan", "tiny", "--json").stdout)
    assert (plan["space"], plan["samples"], plan["serving"]) == (new, FILES + 1, old)
    assert plan["per_s"] > 0
    assert plan["size_bytes"] > 0
    refused = home.msearch("model", "switch", "tiny")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = home.msearch("model", "switch", "tiny", "--yes")
    assert done.returncode == 0, done.stderr
    home.until(lambda: home.phases() == {old: "kept", new: "serving"})
    assert meaning(home) == (new, FILES + 1)
    assert "kept" in home.msearch("spaces").stdout

    assert home.msearch("model", "rollback").returncode == 0
    assert home.phases() == {old: "serving", new: "declined"}
    assert meaning(home) == (old, FILES + 1)
    home.stop()
    home.start()
    home.sync()
    assert home.phases() == {old: "serving", new: "declined"}
    assert home.msearch("model", "switch", new, "--yes").returncode == 0
    home.until(lambda: home.phases()[new] == "serving")
    wrong = home.msearch("model", "drop", new, "--yes")
    assert wrong.returncode == 2
    assert "answers questions" in wrong.stderr
    assert home.msearch("model", "drop", old, "--yes").returncode == 0
    assert home.phases() == {new: "serving"}
    assert meaning(home) == (new, FILES + 1)
    assert home.msearch("model", "drop", "nothing", "--yes").returncode == 3
    home.stop()
    assert all(report.is_clean for report in audit(home.data_dir))


@pytest.mark.slow
def test_killed_while_a_space_is_built_it_goes_on_and_the_old_one_answers(home):
    home.start()
    with_files(home, passages=8)
    [old] = home.phases()
    home.stop()
    changed(home, max_tokens=16)
    home.start()
    assert home.msearch("model", "switch", "tiny", "--yes").returncode == 0
    for pause_s in (0.0, 0.3, 1.0):
        time.sleep(pause_s)
        with contextlib.suppress(AssertionError):
            name, found = meaning(home)  # whichever answers, it has everything
            assert found >= FILES, (name, found)
        home.kill()
        home.start()
    home.sync()
    home.until(lambda: home.phases()[old] == "kept")
    name, found = meaning(home)
    assert name != old
    assert found >= FILES
    home.stop()
    assert all(report.is_clean for report in audit(home.data_dir))


def test_after_a_reset_of_the_index_no_model_is_asked_again(home):
    home.start()
    with_files(home, passages=4)
    home.stop()
    home.start()
    home.sync()
    before = home.points()
    assert home.msearch("reset", "index", "--yes").returncode == 0
    home.sync()
    assert home.points() == before
    assert home.samples() == 0
    assert meaning(home)[1] >= FILES
