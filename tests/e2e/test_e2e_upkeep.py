"""`msearch queue`, `verify` and `backup` against a real daemon; and what becomes of a database that is damaged."""

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time

import pytest

from msearchd.cli.connection import Refused, Unreachable

pytestmark = pytest.mark.timeout(240)


def msearch(daemon, *args):
    command = [sys.executable, "-m", "msearchd.cli.client", "--socket", str(daemon.socket), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def verify(daemon, *, repair=False):
    return daemon.api.post("/system/verify", {"repair": repair}, timeout_s=120)


def with_files(daemon, count, word):
    for number in range(count):
        (daemon.files / f"{number}.txt").write_text(f"file {number} has the word {word}{number}x " * 5)
    daemon.add(daemon.files)
    daemon.sync()


def until(condition, *, daemon, deadline_s=60):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert daemon.process.poll() is None, daemon.log_tail()
        assert time.monotonic() < deadline, f"{daemon.status()}\n{daemon.log_tail()}"
        time.sleep(0.1)


def database(daemon):
    return contextlib.closing(sqlite3.connect(daemon.data_dir / "msearchd.db", isolation_level=None))


# -- queue ---------------------------------------------------------------------------------------------------------------


def test_the_queue_page_counts_by_step_and_says_why_what_stands_still_does(words_daemon):
    daemon = words_daemon
    with_files(daemon, 3, "smew")
    assert msearch(daemon, "queue").stdout.startswith("empty")
    daemon.api.post("/pause", {"reason": "user"})
    (daemon.files / "new.txt").write_text("not read yet")

    def has_waiting():
        return daemon.api.get("/queue")["queue"]["ready"] >= 1

    until(has_waiting, daemon=daemon)
    page = daemon.api.get("/queue")
    assert page["pauses"] == ["user"]
    assert [(step["step"], step["ready"]) for step in page["steps"]] == [("identify", 1)]
    assert page["oldest_s"] >= 0
    assert json.loads(msearch(daemon, "queue", "--json").stdout)["queue"]["ready"] == 1
    shown = msearch(daemon, "queue").stdout
    assert "1 ready" in shown
    assert "paused: user" in shown
    daemon.api.post("/resume", {"reason": "user"})
    daemon.sync()


# -- verify --------------------------------------------------------------------------------------------------------------


def test_verify_finds_and_repairs_a_job_without_a_file_and_a_file_without_a_job(words_daemon):
    daemon = words_daemon
    with_files(daemon, 3, "teal")
    assert verify(daemon)["is_clean"], verify(daemon)
    with database(daemon) as c:
        c.execute(
            "INSERT INTO job (asset, step, priority, state, generation, attempts, error, created_ms, updated_ms)"
            " VALUES (999999, 'ocr', 5, 'failed', 1, 3, 'lost', 1, 1)"
        )
        c.execute("UPDATE asset SET state = 'pending' WHERE name = CAST('1.txt' AS BLOB)")
    found = verify(daemon)
    assert not found["is_clean"]
    assert (found["jobs_without_file"], found["files_without_job"]) == (1, 1)
    told = msearch(daemon, "verify")
    assert told.returncode == 1
    assert "msearch verify --repair" in told.stdout
    assert verify(daemon, repair=True)["is_repaired"]
    daemon.sync()
    assert verify(daemon)["is_clean"]
    assert msearch(daemon, "verify").returncode == 0


def test_verify_sees_a_file_that_nobody_told_us_of(words_daemon):
    daemon = words_daemon
    with_files(daemon, 3, "scaup")
    checked = verify(daemon)["folders"][0]
    assert (checked["is_checked"], checked["files"]) == (True, 3)


# -- backup --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_vectors", [True, False])
def test_a_restored_backup_starts_and_is_complete_after_its_scan(words_daemon, tmp_path, has_vectors):
    daemon = words_daemon
    with_files(daemon, 5, "garganey")
    target = tmp_path / "saved"
    done = msearch(daemon, "backup", target, *([] if has_vectors else ["--no-vectors"]))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert stat.S_IMODE((target / "msearchd.db").stat().st_mode) == 0o600
    again = msearch(daemon, "backup", target)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]  # nothing left over
    (daemon.files / "later.txt").write_text("written after the backup: garganeylaterx")
    (daemon.files / "0.txt").unlink()
    daemon.sync()
    daemon.stop()
    shutil.rmtree(daemon.data_dir)
    shutil.copytree(target, daemon.data_dir)
    daemon.start()
    daemon.sync()
    assert daemon.found_by_words("garganey3x") == {daemon.files / "3.txt"}
    assert daemon.found_by_words("garganeylaterx") == {daemon.files / "later.txt"}
    assert daemon.found_by_words("garganey0x") == set()
    assert verify(daemon)["is_clean"]


def test_a_backup_into_the_data_folder_or_nowhere_is_refused(words_daemon):
    daemon = words_daemon
    for target, reason in ((daemon.data_dir / "b", "own data folder"), (daemon.files / "no" / "b", "no folder")):
        with pytest.raises(Refused, match=reason):
            daemon.api.post("/system/backup", {"path": os.fspath(target)})


# -- damage --------------------------------------------------------------------------------------------------------------


def overwrite_all(file):
    file.write_bytes(b"\xa5" * file.stat().st_size)


def zero_all(file):
    file.write_bytes(bytes(file.stat().st_size))


def empty(file):
    file.write_bytes(b"")


def zero_the_middle(file):
    size = file.stat().st_size
    with file.open("r+b") as open_file:
        open_file.seek(4096 * 4)
        open_file.write(bytes(size - 4096 * 8))


@pytest.mark.parametrize("damage", [overwrite_all, zero_all, empty, zero_the_middle], ids=lambda f: f.__name__)
def test_a_damaged_database_is_set_aside_told_and_made_anew_with_its_folders(words_daemon, damage):
    daemon = words_daemon
    with_files(daemon, 4, "axolotl")
    daemon.stop()  # the whole log is in the file
    (daemon.data_dir / "running").touch()  # as a power cut leaves it
    damage(daemon.data_dir / "msearchd.db")
    daemon.start()

    def is_complete():
        # A damage in the middle is found by the check after the start: the daemon starts over in its process.
        with contextlib.suppress(Refused, Unreachable):
            return daemon.status()["folders"] and len(daemon.found_by_words("axolotl2x")) == 1
        return False

    until(is_complete, daemon=daemon)
    until(lambda: any("made anew" in problem for problem in daemon.status()["problems"]), daemon=daemon)
    daemon.sync()
    for number in range(4):
        assert daemon.found_by_words(f"axolotl{number}x") == {daemon.files / f"{number}.txt"}
    assert verify(daemon)["is_clean"]
    (kept,) = (daemon.data_dir / "damaged").iterdir()
    assert (kept / "msearchd.db").exists()
    assert daemon.events("database damaged, made anew")
    shutil.rmtree(kept)  # acknowledged
    assert daemon.status()["problems"] == []
    assert daemon.status()["state"] == "ready"


def test_after_an_unclean_end_the_database_is_checked_and_after_a_clean_one_it_is_not(words_daemon):
    daemon = words_daemon
    with_files(daemon, 2, "eider")
    daemon.kill()
    daemon.start()
    until(lambda: bool(daemon.events("database sound")), daemon=daemon, deadline_s=30)
    daemon.stop()
    before = len(daemon.events("database sound"))
    daemon.start()
    time.sleep(6)  # the check comes after five seconds
    assert len(daemon.events("database sound")) == before


def test_sync_waits_for_vectors_that_were_damaged_while_the_daemon_was_down(daemon):
    with_files(daemon, 6, "dunlin")
    daemon.stop()
    files = [file for file in (daemon.data_dir / "vectors").rglob("*.json") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(b"\x00garbage")
    daemon.start()
    daemon.sync()
    found = verify(daemon)
    assert found["is_clean"], found
    assert daemon.status()["folders"][0]["files"]["indexed"] == 6


def test_what_a_killed_backup_left_is_removed_by_the_next_start(words_daemon, tmp_path):
    daemon, part = words_daemon, tmp_path / ".copy.part"
    part.mkdir()
    (part / "msearchd.db.part").write_text("half a copy")
    (daemon.data_dir / "backups-in-work.json").write_text(json.dumps([str(part)]))
    daemon.kill()
    daemon.start()
    until(lambda: not part.exists(), daemon=daemon)
    until(lambda: not (daemon.data_dir / "backups-in-work.json").exists(), daemon=daemon)


def test_verify_exits_with_1_where_a_folder_could_not_be_compared_and_names_it(words_daemon):
    daemon = words_daemon
    with_files(daemon, 2, "teal")
    assert msearch(daemon, "verify").returncode == 0
    daemon.files.rename(daemon.home / "away")
    try:
        until(lambda: daemon.api.get("/folders")["folders"][0]["state"] == "offline", daemon=daemon)
        done = msearch(daemon, "verify")
        assert done.returncode == 1
        assert "not compared" in done.stdout
        assert str(daemon.files.name) in done.stdout
    finally:
        (daemon.home / "away").rename(daemon.files)
    assert "Exit status: 0" in msearch(daemon, "verify", "--help").stdout
