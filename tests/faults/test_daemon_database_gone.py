"""Database or data folder replaced or deleted under the running daemon: noticed in seconds, told, and gone on from."""

import contextlib
import shutil
import time

import pytest
from daemon_harness import daemon_home
from index_audit import audit

from msearchd.cli.connection import Refused, Unreachable

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def daemon():
    with daemon_home({"inference": {"text_model": ""}}) as home:
        home.start()
        home.add(home.files)
        write(home, "snipe")
        home.sync()
        yield home


def write(daemon, word):
    for number in range(4):
        (daemon.files / f"{word}{number}.txt").write_text(f"file {number} has the word {word}{number}x " * 5)


def until(condition, *, daemon, deadline_s=30):
    deadline = time.monotonic() + deadline_s
    while True:
        assert daemon.process.poll() is None, daemon.log_tail()
        with contextlib.suppress(Unreachable, Refused):  # it starts over in place
            if condition():
                return
        assert time.monotonic() < deadline, daemon.log_tail()
        time.sleep(0.1)


def has_begun_again(daemon):
    return len(daemon.events("ready")) == 2


def is_found(daemon, word):
    return len(daemon.found_by_words(f"{word}3x")) == 1


def is_well_after(daemon):
    write(daemon, "heron")
    until(lambda: daemon.sync()["is_complete"], daemon=daemon, deadline_s=60)
    assert is_found(daemon, "heron")
    assert is_found(daemon, "snipe")
    daemon.stop()
    assert daemon.process.returncode == 0
    assert daemon.tracebacks() == []
    assert all(report.is_clean for report in audit(daemon.data_dir))


def test_a_database_that_a_backup_is_put_in_place_of_is_opened_and_told(daemon, tmp_path):
    daemon.api.post("/system/backup", {"path": str(tmp_path / "copy"), "vectors": False}, timeout_s=60)
    write(daemon, "later")
    daemon.sync()
    began = time.monotonic()
    shutil.copy(tmp_path / "copy" / "msearchd.db", daemon.data_dir / "new.db")
    (daemon.data_dir / "new.db").replace(daemon.data_dir / "msearchd.db")
    until(lambda: daemon.events("database not at its place"), daemon=daemon, deadline_s=10)
    assert time.monotonic() - began < 8
    until(lambda: any("was replaced" in notice for notice in daemon.status()["notices"]), daemon=daemon)
    assert not (daemon.data_dir / "damaged").exists()
    assert has_begun_again(daemon)
    until(lambda: daemon.sync()["is_complete"] and is_found(daemon, "later"), daemon=daemon, deadline_s=60)
    is_well_after(daemon)


def test_a_database_that_is_deleted_is_made_anew_and_folders_stay_watched(daemon):
    (daemon.data_dir / "msearchd.db").unlink()
    until(lambda: any("removed" in problem for problem in daemon.status()["problems"]), daemon=daemon, deadline_s=10)
    assert daemon.status()["pauses"] == ["database-gone"]
    until(lambda: has_begun_again(daemon), daemon=daemon)
    until(lambda: daemon.sync()["is_complete"] and is_found(daemon, "snipe"), daemon=daemon, deadline_s=60)
    is_well_after(daemon)


def test_a_data_folder_that_is_deleted_is_made_anew(daemon):
    shutil.rmtree(daemon.data_dir, ignore_errors=True)
    until(lambda: has_begun_again(daemon), daemon=daemon)
    until(lambda: daemon.sync()["is_complete"] and is_found(daemon, "snipe"), daemon=daemon, deadline_s=60)
    assert daemon.status()["state"] != "paused"
    is_well_after(daemon)
