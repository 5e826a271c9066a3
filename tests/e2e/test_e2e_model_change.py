"""A change of model and the vector cache, with a real daemon and real (tiny) models."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from daemon_harness import DaemonHome
from index_audit import audit

pytestmark = pytest.mark.timeout(300)

FILES = 12


class HomeWithModels(DaemonHome):
    """`models`: tables of [[inference.models]]."""

    models: tuple[dict, ...] = ()

    def write_config(self):
        super().write_config()
        lines = []
        for model in self.models:
            lines += ["[[inference.models]]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
        self.config.write_text(self.config.read_text() + "\n".join(lines) + "\n")


@pytest.fixture
def home(tiny_text):
    place = Path(tempfile.mkdtemp(prefix="msd-")).resolve()
    home = HomeWithModels(place, settings={"inference": {"text_model": "tiny", "switch_unasked": 0}})
    home.models = ({"name": "tiny", "source": str(tiny_text), "engine": "sentence_transformers"},)
    try:
        yield home
    finally:
        home.end()
        shutil.rmtree(place, ignore_errors=True)


def msearch(home, *args):
    command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(home.socket), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def with_files(home, *, passages=1):
    for number in range(FILES):
        text = "\n\n".join(f"file {number} part {part} speaks of winter and the sea. " * 12 for part in range(passages))
        (home.files / f"{number}.txt").write_text(text)
    home.add(home.files)
    home.sync()


def changed(home, **more):
    """The same weights, cut off at another length: another fingerprint, another space."""
    home.models = ({**home.models[0], **more},)


def phases(home):
    return {row["name"]: row["phase"] for row in home.api.get("/spaces")["spaces"]}


def meaning(home):
    """Name of the space that answered, and how many passages it gave."""
    reply = home.api.post("/search", {"text": "winter sea", "wait_s": 60.0}, timeout_s=90)
    assert not reply["missing"], reply["missing"]
    return next((one["list"], one["candidates"]) for one in reply["lists"] if one["list"].startswith("tiny"))


def until(condition, home, *, deadline_s=90):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert home.process.poll() is None, home.log_tail()
        assert time.monotonic() < deadline, f"{phases(home)}\n{home.log_tail()}"
        time.sleep(0.1)


def embedded(home):
    """Passages that went through a model since the start."""
    return sum(row["samples"] for row in home.api.get("/models")["models"])


def test_a_changed_model_is_planned_switched_rolled_back_and_dropped(home):
    home.start()
    with_files(home)
    [old] = phases(home)
    home.stop()
    changed(home, max_tokens=16)
    home.start()
    home.sync()
    [new] = phases(home).keys() - {old}
    assert phases(home) == {old: "serving", new: "waiting"}
    assert meaning(home) == (old, FILES)
    assert any("passages await" in sentence for sentence in home.status()["notices"])
    assert "passages await" in msearch(home, "status").stdout
    (home.files / "later.txt").write_text("a later file about winter")
    home.sync()
    assert meaning(home) == (old, FILES + 1)

    plan = json.loads(msearch(home, "model", "plan", "tiny", "--json").stdout)
    assert (plan["space"], plan["samples"], plan["serving"]) == (new, FILES + 1, old)
    assert plan["per_s"] > 0
    assert plan["size_bytes"] > 0
    refused = msearch(home, "model", "switch", "tiny")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = msearch(home, "model", "switch", "tiny", "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: phases(home) == {old: "kept", new: "serving"}, home)
    assert meaning(home) == (new, FILES + 1)
    assert "kept" in msearch(home, "spaces").stdout

    assert msearch(home, "model", "rollback").returncode == 0
    assert phases(home) == {old: "serving", new: "declined"}
    assert meaning(home) == (old, FILES + 1)
    home.stop()
    home.start()
    home.sync()
    assert phases(home) == {old: "serving", new: "declined"}
    assert msearch(home, "model", "switch", new, "--yes").returncode == 0
    until(lambda: phases(home)[new] == "serving", home)
    wrong = msearch(home, "model", "drop", new, "--yes")
    assert wrong.returncode == 2
    assert "answers questions" in wrong.stderr
    assert msearch(home, "model", "drop", old, "--yes").returncode == 0
    assert phases(home) == {new: "serving"}
    assert meaning(home) == (new, FILES + 1)
    assert msearch(home, "model", "drop", "nothing", "--yes").returncode == 3
    home.stop()
    assert all(report.is_clean for report in audit(home.data_dir))


@pytest.mark.slow
def test_killed_while_a_space_is_built_it_goes_on_and_the_old_one_answers(home):
    home.start()
    with_files(home, passages=8)
    [old] = phases(home)
    home.stop()
    changed(home, max_tokens=16)
    home.start()
    assert msearch(home, "model", "switch", "tiny", "--yes").returncode == 0
    for pause_s in (0.0, 0.3, 1.0):
        time.sleep(pause_s)
        with contextlib.suppress(AssertionError):
            name, found = meaning(home)  # whichever answers, it has everything
            assert found >= FILES, (name, found)
        home.kill()
        home.start()
    home.sync()
    until(lambda: phases(home)[old] == "kept", home)
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
    assert msearch(home, "reset", "index", "--yes").returncode == 0
    home.sync()
    assert home.points() == before
    assert embedded(home) == 0
    assert meaning(home)[1] >= FILES
