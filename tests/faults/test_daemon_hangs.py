"""A child that hangs (stopped by a signal, as a dead disk or a deadlock would) is replaced, and nothing is lost."""

import contextlib
import os
import signal
import time

import pytest
from daemon_harness import daemon_home

from msearchd.cli.connection import Refused

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def daemon():
    quick = {
        "store": {"timeout_s": 3.0},
        "extract": {"timeout_s": 3.0},
        "inference": {"request_timeout_s": 3.0},
        "search": {"query_timeout_s": 20.0},
    }
    with daemon_home(quick) as home:
        for number in range(4):
            (home.files / f"{number}.txt").write_text(f"before the trouble: grebe{number}x")
        home.start()
        home.add(home.files)
        home.sync()
        yield home


def all_found(daemon, *, deadline_s):
    """Sync until nothing is delayed and every file is found, at the latest after *deadline_s*."""
    deadline = time.monotonic() + deadline_s
    files = sorted(daemon.files.iterdir())
    while True:
        assert daemon.process.poll() is None, daemon.log_tail()
        with contextlib.suppress(Refused):
            reply = daemon.api.post("/sync", {"timeout_s": 10}, timeout_s=40)
            if reply["is_complete"] and reply["pending"] == 0:
                break
        assert time.monotonic() < deadline, f"{daemon.status()}\n{daemon.log_tail()}"
        time.sleep(0.2)  # delayed jobs wait for a clock
    for path in files:
        assert daemon.found_by_words(path.read_text().split()[-1]) == {path}
    assert daemon.api.get("/failed")["items"] == []


@pytest.mark.parametrize("kind", ["store", "extract", "model:"])
def test_a_child_that_hangs_is_replaced_and_the_files_are_indexed(daemon, kind):
    hanging = daemon.children(kind)[-1]
    os.kill(hanging, signal.SIGSTOP)
    for number in range(4, 10):
        (daemon.files / f"{number}.txt").write_text(f"in the trouble: grebe{number}x")
    all_found(daemon, deadline_s=90)
    assert hanging not in daemon.processes(), "the process that hangs still lives"
    daemon.stop()


@pytest.mark.parametrize("kind", ["store", "model:"])
def test_a_search_answers_by_words_while_the_rest_hangs_and_says_what_is_missing(daemon, kind):
    os.kill(daemon.children(kind)[-1], signal.SIGSTOP)
    began = time.monotonic()
    reply = daemon.api.post("/search", {"text": "grebe2x"}, timeout_s=60)
    assert time.monotonic() - began < 25
    assert reply["hits"][0]["path"] == str(daemon.files / "2.txt")
    assert reply["missing"] or all(not part["error"] for part in reply["lists"])  # it recovered in time, or says so
    all_found(daemon, deadline_s=90)
    daemon.stop()


def test_stopping_does_not_wait_for_a_child_that_hangs(daemon):
    for kind in ("store", "extract", "model:"):
        os.kill(daemon.children(kind)[-1], signal.SIGSTOP)
    began = time.monotonic()
    daemon.stop()  # 0, nothing left behind
    assert time.monotonic() - began < daemon.settings["limits"]["drain_s"] + 20
