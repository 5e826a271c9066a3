"""Starting, stopping and standing beside others: what the daemon does to the machine it lives on."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest


def write_notes(folder, count, word):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"note {number}: {word}{number}x and some more words to embed " * 5)


def test_what_changed_while_it_was_down_is_found_at_the_start(daemon):
    write_notes(daemon.files, 6, "otter")
    (daemon.files / "sub").mkdir()
    (daemon.files / "sub/deep.txt").write_text("a deep fjord")
    daemon.add(daemon.files)
    daemon.sync()
    embedded = daemon.steps_done()
    daemon.stop()
    (daemon.files / "0.txt").write_text("edited in the dark: axolotl")
    (daemon.files / "1.txt").unlink()
    (daemon.files / "2.txt").rename(daemon.files / "renamed.txt")
    (daemon.files / "sub").rename(daemon.files / "moved")
    (daemon.files / "new.txt").write_text("new in the dark: pangolin")
    daemon.start()
    daemon.sync()
    assert daemon.found_by_words("axolotl") == {daemon.files / "0.txt"}
    assert daemon.found_by_words("otter0x") == set()
    assert daemon.found_by_words("otter1x") == set()
    assert daemon.found_by_words("otter2x") == {daemon.files / "renamed.txt"}
    assert daemon.found_by_words("fjord") == {daemon.files / "moved/deep.txt"}
    assert daemon.found_by_words("pangolin") == {daemon.files / "new.txt"}
    assert daemon.steps_done() == embedded + 2  # only what has new bytes


def test_the_log_tells_one_life_from_start_to_stop(daemon):
    write_notes(daemon.files, 3, "otter")
    daemon.add(daemon.files)
    daemon.sync()
    daemon.stop()
    told = [event["event"] for event in daemon.events()]
    assert told[-1] == "stopped"
    assert told.count("space ready") == 1


def test_an_edit_that_keeps_size_and_folder_times_is_found_at_the_next_start(words_daemon):
    daemon = words_daemon
    path = daemon.files / "note.txt"
    path.write_text("the code word is quokka")
    daemon.add(daemon.files)
    daemon.sync()
    daemon.stop()
    with path.open("r+") as file:  # in place: the folder's time does not change, nor does the size
        file.write("the code word is numbat")
    daemon.start()
    daemon.sync()
    assert daemon.found_by_words("numbat") == {path}
    assert daemon.found_by_words("quokka") == set()


def test_a_second_daemon_on_the_same_data_is_refused_with_a_sentence(words_daemon):
    daemon = words_daemon
    started = subprocess.run(
        [sys.executable, "-m", "msearchd", "run", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        env=daemon.environment(),
        timeout=60,
        check=False,
    )
    said = started.stdout + started.stderr
    assert started.returncode == 78, said
    assert str(daemon.pid) in said
    assert "Traceback" not in said
    assert daemon.api.get("/version")["version"]  # the first one lives on


def test_a_socket_left_by_a_killed_daemon_is_taken_over(words_daemon):
    daemon = words_daemon
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert oct(daemon.socket.stat().st_mode & 0o777) == "0o600"


def test_another_programs_socket_is_left_alone(words_daemon):
    daemon = words_daemon
    daemon.stop()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(daemon.socket))
        other.listen()
        process = daemon.launch()
        assert process.wait(60) == 78, daemon.log_tail()
        assert not daemon.tracebacks()
    assert daemon.socket.exists()


def test_a_broken_settings_file_is_refused_before_anything_starts(words_daemon):
    daemon = words_daemon
    daemon.stop()
    daemon.config.write_text(f'data_dir = "{daemon.data_dir}"\n[watch]\nsettle_closd_s = 1\n')
    started = subprocess.run(
        [sys.executable, "-m", "msearchd", "run", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        env=daemon.environment(),
        timeout=60,
        check=False,
    )
    assert started.returncode == 78
    assert "settle_closed_s" in started.stderr  # what was meant
    assert ":3:" in started.stderr  # where it stands


def test_stopped_while_it_indexes_it_drains_in_time_and_the_next_start_finishes(daemon):
    write_notes(daemon.files, 150, "heron")
    daemon.add(daemon.files)
    deadline = time.monotonic() + 60
    while daemon.steps_done() == 0:  # in the middle of it
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.01)
    began = time.monotonic()
    daemon.stop()  # ends with 0, without a traceback, without a child
    assert time.monotonic() - began < daemon.settings["limits"]["drain_s"] + 10
    done_before = daemon.steps_done()
    assert done_before < 150
    daemon.start()
    reply = daemon.sync()
    assert (reply["pending"], reply["failed"], reply["blocked"]) == (0, 0, 0)
    assert daemon.steps_done() == 150  # none was done twice
    assert daemon.points() == 150
    assert daemon.found_by_words("heron149x") == {daemon.files / "149.txt"}


def test_stopped_while_the_model_loads_it_ends_in_time_and_the_next_start_finishes(daemon):
    write_notes(daemon.files, 5, "crake")
    daemon.add(daemon.files)
    deadline = time.monotonic() + 30
    while not daemon.children("store"):  # the model's space is being made: the model loads, or is about to
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.01)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < daemon.settings["limits"]["drain_s"] + 10
    daemon.start()
    reply = daemon.sync()
    assert (reply["pending"], reply["failed"]) == (0, 0)
    assert daemon.found_by_words("crake4x") == {daemon.files / "4.txt"}
    assert daemon.points() == 5


def test_a_second_sigterm_does_not_wait(words_daemon):
    daemon = words_daemon
    write_notes(daemon.files, 50, "stork")
    daemon.add(daemon.files)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(20) in {0, 1}
    assert daemon.processes_gone(deadline_s=10)


def mapped_files(pid):
    with open(f"/proc/{pid}/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_daemon_process_never_loads_an_engine_and_stays_small(daemon):
    small = daemon.status()["resident_bytes"]
    assert small <= 80 * 1024**2, f"{small >> 20} MiB before anything was indexed"
    write_notes(daemon.files, 40, "ibis")
    daemon.add(daemon.files)
    daemon.sync()
    assert daemon.found_by_words("ibis7x")
    heavy = re.compile(
        r"torch|numpy|qdrant|onnxruntime|PIL|pillow|kreuzberg|magika|tokenizers|cv2|scipy", re.IGNORECASE
    )
    assert {name for name in mapped_files(daemon.pid) if heavy.search(name)} == set()
    after = daemon.status()["resident_bytes"]
    assert after <= 80 * 1024**2, f"{after >> 20} MiB after indexing and searching"


def test_killed_while_it_resets_nothing_is_lost_and_it_does_not_stand_still_for_ever(daemon):
    write_notes(daemon.files, 30, "egret")
    daemon.add(daemon.files)
    daemon.sync()
    for what in ("index", "database"):
        asking = subprocess.Popen(
            [sys.executable, "-m", "msearchd.cli.client", "reset", what, "--yes"],
            env=daemon.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not _is_pausing(daemon) and asking.poll() is None:  # it began
            assert time.monotonic() < deadline
        daemon.kill()
        asking.wait(30)
        daemon.start()
        daemon.sync()
        assert daemon.status()["pauses"] == []
        assert daemon.found_by_words("egret7x") == {daemon.files / "7.txt"}, what
        assert daemon.points() == 30, what


def _is_pausing(daemon):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data_dir}/msearchd.db?mode=ro", uri=True)) as c:
        return c.execute("SELECT count(*) FROM queue_flag").fetchone()[0] > 0


def test_a_store_that_is_down_at_the_start_delays_vectors_alone(daemon):
    write_notes(daemon.files, 3, "rail")
    daemon.add(daemon.files)
    daemon.sync()
    daemon.stop()
    mine = daemon.settings["store"]
    daemon.settings["store"] = {**mine, "url": "http://127.0.0.1:9", "grpc_port": 0, "timeout_s": 3.0}  # nobody listens
    daemon.start()
    new = daemon.files / "new.txt"
    new.write_text("written while the store is down: turnstone")
    deadline = time.monotonic() + 30
    while not (found := daemon.api.post("/search", {"text": "turnstone"}, timeout_s=60)["hits"]):
        assert time.monotonic() < deadline, daemon.log_tail()
    assert found[0]["path"] == str(new)
    status = daemon.status()
    assert status["state"] == "degraded"
    assert any("127.0.0.1:9" in problem for problem in status["problems"])
    daemon.stop()
    daemon.settings["store"] = mine
    daemon.start()
    daemon.sync()
    assert daemon.found_by_words("turnstone") == {new}
    assert daemon.points() == 4


def test_a_model_that_is_missing_blocks_with_the_line_to_type_and_words_are_found_all_the_same(daemon):
    daemon.stop()
    daemon.settings["inference"] = {"text_model": "mine"}
    daemon.write_config()
    models = '[[inference.models]]\nname = "mine"\nsource = "nobody/has-this-model"\n'
    daemon.settings["inference"]["text_model"] = "mine"
    original = daemon.write_config

    def with_model():
        original()
        daemon.config.write_text(daemon.config.read_text() + models)

    daemon.write_config = with_model
    daemon.start()
    path = daemon.files / "note.txt"
    path.write_text("words without meaning: cassowary")
    daemon.add(daemon.files)
    assert daemon.sync()["blocked"] == 1
    reply = daemon.api.post("/search", {"text": "cassowary"})
    assert [hit["path"] for hit in reply["hits"]] == [str(path)]
    assert reply["missing"]  # and it says so
    status = daemon.status()
    assert status["state"] == "degraded"
    assert "mine" in status["blocked"][0]["cause"]
    explained = daemon.explain(path)
    assert explained["verdict"] == "blocked"
    assert os.linesep not in explained["sentence"]
