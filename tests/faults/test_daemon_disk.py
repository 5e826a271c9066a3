"""The disk of data_dir is full, nearly full, read-only, or its database locked: the daemon survives and goes on by itself."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemon_harness import daemon_home
from index_audit import audit

from msearchd.cli.connection import Refused, Unreachable

needs_mount = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root: run these as root"
)
pytestmark = pytest.mark.timeout(240)
_MIB = 1 << 20
_SMALL_DISK_MIB = 192  # room for the index, WAL included, above the floor of 32 MB at which indexing stands still


class Disk:
    """A small disk that can be filled and freed."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.ballast = top / "ballast"

    def fill(self, *, leave_bytes: int) -> None:
        """Leave so much free, to the page."""
        with self.ballast.open("ab") as file, contextlib.suppress(OSError):
            while (free := shutil.disk_usage(self.top).free) > leave_bytes:
                file.write(bytes(min(free - leave_bytes, _MIB)))
                file.flush()

    def free(self) -> None:
        self.ballast.unlink()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.top)], check=True, capture_output=True)


@pytest.fixture
def daemon():
    with daemon_home({"store": {"min_free_mb": 32}, "inference": {"request_timeout_s": 30.0}}) as home:
        yield home


@pytest.fixture
def disk(daemon):
    """data_dir on a disk of its own; the watched files are elsewhere."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_MIB}m", "tmpfs", str(daemon.data_dir)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        yield Disk(daemon.data_dir)
    finally:
        daemon.end()
        subprocess.run(["umount", "-l", str(daemon.data_dir)], check=False)


def write(daemon, names, word):
    for name in names:
        (daemon.files / f"{name}.txt").write_text(f"file {name} has the word {word}{name}x " * 20)


def until(condition, *, deadline_s, daemon):
    """Poll what only a clock brings: a disk is looked at now and then."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert daemon.process.poll() is None, f"the daemon ended with {daemon.process.returncode}\n{daemon.log_tail()}"
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {daemon.status()}\n{daemon.log_tail()}"
        time.sleep(0.1)


def all_searchable(daemon, *, deadline_s=90):
    def is_done() -> bool:
        with contextlib.suppress(Refused):
            reply = daemon.api.post("/sync", {"timeout_s": 10}, timeout_s=40)
            return reply["is_complete"] and reply["pending"] == 0
        return False

    until(is_done, deadline_s=deadline_s, daemon=daemon)


@needs_mount
def test_before_the_disk_is_full_indexing_pauses_and_resumes_when_there_is_room(daemon, disk):
    daemon.start()
    daemon.add(daemon.files)
    write(daemon, range(5), "snipe")
    daemon.sync()
    disk.fill(leave_bytes=20 * _MIB)
    write(daemon, range(5, 10), "snipe")
    until(lambda: daemon.status()["pauses"] == ["disk-low"], deadline_s=20, daemon=daemon)
    status = daemon.status()
    assert status["state"] == "paused"
    assert any("disk" in problem or "space" in problem for problem in status["problems"])
    assert daemon.found_by_words("snipe3x") == {daemon.files / "3.txt"}  # searches go on
    disk.free()
    until(lambda: daemon.status()["pauses"] == [], deadline_s=20, daemon=daemon)
    all_searchable(daemon)
    assert daemon.found_by_words("snipe9x") == {daemon.files / "9.txt"}
    daemon.stop()
    assert all(report.is_clean for report in audit(daemon.data_dir))


@needs_mount
def test_a_disk_that_fills_up_at_once_kills_nothing_and_nothing_is_lost(daemon, disk):
    daemon.start()
    daemon.add(daemon.files)
    write(daemon, range(5), "godwit")
    daemon.sync()
    disk.fill(leave_bytes=0)
    write(daemon, range(5, 40), "godwit")
    (daemon.files / "0.txt").unlink()
    with contextlib.suppress(Refused, Unreachable):
        daemon.api.post("/sync", {"timeout_s": 8}, timeout_s=60)
    assert daemon.process.poll() is None, daemon.log_tail()
    assert daemon.found_by_words("godwit3x") == {daemon.files / "3.txt"}
    status = daemon.status()
    assert status["state"] in {"paused", "degraded"}, status
    assert status["problems"], status
    disk.free()
    all_searchable(daemon)
    assert daemon.found_by_words("godwit39x") == {daemon.files / "39.txt"}
    assert daemon.found_by_words("godwit0x") == set()
    until(lambda: daemon.status()["state"] == "ready", deadline_s=30, daemon=daemon)
    daemon.stop()
    assert all(report.is_clean for report in audit(daemon.data_dir))


@needs_mount
def test_a_full_disk_at_the_start_ends_in_a_sentence_or_in_a_daemon_that_waits(daemon, disk):
    daemon.start()
    daemon.add(daemon.files)
    write(daemon, range(3), "ruff")
    daemon.sync()
    daemon.stop()
    disk.fill(leave_bytes=0)
    write(daemon, range(3, 6), "ruff")
    process = daemon.launch()
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline and not _answers(daemon):
        time.sleep(0.05)
    if process.poll() is not None:
        assert process.returncode == 75, daemon.log_tail()
        assert "disk" in daemon.log_tail(5)  # what is wrong, and where
        disk.free()
        daemon.start()
    else:
        disk.free()
    assert not daemon.tracebacks()
    all_searchable(daemon)
    assert daemon.found_by_words("ruff5x") == {daemon.files / "5.txt"}
    daemon.stop()


@needs_mount
def test_a_read_only_data_folder_is_refused_with_a_sentence_and_works_again_when_writable(daemon, disk):
    daemon.start()
    daemon.add(daemon.files)
    write(daemon, range(3), "knot")
    daemon.sync()
    daemon.stop()
    disk.remount("ro")
    process = daemon.launch()
    assert process.wait(30) in {75, 77, 78}, daemon.log_tail()
    assert not daemon.tracebacks()
    assert "data" in daemon.log_tail(5)
    disk.remount("rw")
    daemon.start()
    all_searchable(daemon)
    assert daemon.found_by_words("knot2x") == {daemon.files / "2.txt"}
    daemon.stop()


def test_a_database_that_another_program_locks_delays_and_loses_nothing(daemon):
    daemon.start()
    daemon.add(daemon.files)
    write(daemon, range(3), "teal")
    daemon.sync()
    with contextlib.closing(sqlite3.connect(daemon.data_dir / "msearchd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # as a backup program may, for longer than any busy timeout
        write(daemon, range(3, 20), "teal")
        (daemon.files / "0.txt").unlink()
        with contextlib.suppress(Refused):
            daemon.api.post("/sync", {"timeout_s": 12}, timeout_s=60)
        assert daemon.process.poll() is None, daemon.log_tail()
        assert daemon.found_by_words("teal2x") == {daemon.files / "2.txt"}
        other.execute("ROLLBACK")
    all_searchable(daemon)
    assert daemon.found_by_words("teal19x") == {daemon.files / "19.txt"}
    assert daemon.found_by_words("teal0x") == set()
    daemon.stop()
    assert all(report.is_clean for report in audit(daemon.data_dir))


def _answers(daemon) -> bool:
    with contextlib.suppress(Unreachable, Refused):
        return bool(daemon.api.get("/version", timeout_s=2))
    return False
