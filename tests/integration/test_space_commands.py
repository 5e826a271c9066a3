"""`msearch spaces` and `msearch model` against a control that keeps its promises, and the status that tells of them."""

import json
import os
import subprocess
import sys

import pytest
from live_api import live_api


@pytest.fixture
def api(tmp_path):
    with live_api(tmp_path / "s", {}) as live:
        yield live


def msearch(api, *args):
    command = [sys.executable, "-m", "msearchd.cli.client", *args]
    environ = {"PATH": os.environ["PATH"], "HOME": "/docs", "MSEARCHD__API__SOCKET": str(api.socket_path)}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=environ, stdin=subprocess.DEVNULL
    )


def test_spaces_are_shown_with_state_coverage_and_what_awaits_a_decision(api):
    out = msearch(api, "spaces").stdout
    head, serving, waiting, notice = out.splitlines()
    assert head.split()[:4] == ["SPACE", "FOR", "STATE", "COVERAGE"]
    assert serving.split()[:6] == ["words-1", "text", "serving", "100.0", "%", "70,000"]
    assert waiting.split()[:5] == ["words-2", "text", "waiting", "0.0", "%"]
    assert notice.startswith("! 70,000 passages await")


def test_a_plan_says_passages_time_bytes_and_how_long_both_stay(api):
    out = msearch(api, "model", "plan", "words").stdout
    assert "70,000 passages of 9,000 contents" in out
    assert "58 min" in out
    assert "words-1 answers until it is complete, and is kept for 168 h after it" in out


def test_a_change_asks_first_and_says_what_to_add_where_nobody_can_answer(api):
    done = msearch(api, "model", "switch", "words")
    assert done.returncode == 2
    assert "70,000 passages" in done.stderr
    assert "--yes" in done.stderr
    assert json.loads(msearch(api, "spaces", "--json").stdout)["spaces"][0]["phase"] == "serving"


def test_switch_roll_back_and_drop(api):
    assert msearch(api, "model", "switch", "words", "--yes").stdout == "words-2 answers\n"
    assert msearch(api, "model", "rollback").stdout == "words-1 answers\n"
    assert msearch(api, "model", "drop", "words-2", "--yes").stdout == "words-2: 0 points deleted\n"
    assert json.loads(msearch(api, "model", "plan", "words-2", "--json").stdout)["phase"] == "declined"


def test_mistakes_are_told_with_what_to_type(api):
    for args, code, told in (
        (("model", "switch"), 2, "msearch model switch NAME"),
        (("model", "switch", "words-1", "--yes"), 2, "msearch model rollback"),
        (("model", "plan", "nothing"), 3, "there is no vector space 'nothing' (there is: words-1, words-2)"),
        (("model", "drop", "words-1", "--yes"), 2, "answers questions"),
        (("model", "rollback", "image"), 2, "no space of another model is kept"),
        (("model", "rollback", "smells"), 2, "modality"),
        (("model", "sell", "words"), 2, "invalid choice"),
    ):
        done = msearch(api, *args)
        assert (done.returncode, told in done.stderr) == (code, True), (args, done)
