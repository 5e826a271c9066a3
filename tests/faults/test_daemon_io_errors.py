"""Writes and syncs of the database fail at the N-th call, or for seconds: the daemon stays up, says so, and goes on."""

import contextlib
import errno
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemon_harness import daemon_home

from msearchd.cli.connection import Refused

COMPILER = shutil.which("cc") or shutil.which("gcc")
IS_LONG = bool(os.environ.get("MSEARCHD_LONG"))
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler"),
]


class Shim:
    """Makes calls on the database's files fail."""

    def __init__(self, folder):
        self.library = folder / "disk_shim.so"
        self.control = folder / "control"
        self.log = folder / "log"
        source = Path(__file__).with_name("disk_shim.c")
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O1", "-o", self.library, source, "-ldl"], check=True, timeout=60
        )

    def environment(self):
        return {
            "LD_PRELOAD": os.fspath(self.library), "SHIM_NAME": "msearchd.db",
            "SHIM_CONTROL": os.fspath(self.control), "SHIM_LOG": os.fspath(self.log),
        }  # fmt: skip

    def fail(self, number, *, first=1, count=1_000_000):
        part = self.control.with_suffix(".part")
        part.write_text(
            f"{number} {first} {count} {time.monotonic_ns() % 10**9}"
        )  # new text: the calls are counted anew
        part.replace(self.control)

    def heal(self):
        self.control.unlink(missing_ok=True)

    @property
    def failures(self):
        return self.log.stat().st_size if self.log.exists() else 0


@pytest.fixture
def world(tmp_path):
    """A daemon in step with five files, under the shim."""
    shim = Shim(tmp_path)
    settings = {"watch": {"settle_created_s": 0.1, "settle_modified_s": 0.1, "settle_closed_s": 0.05}}
    with daemon_home(settings) as home:
        home.prefix = ("env", *(f"{name}={value}" for name, value in shim.environment().items()))
        for number in range(5):
            (home.files / f"{number}.txt").write_text(f"before the trouble: smew{number}x")
        home.start()
        home.add(home.files)
        home.sync()
        yield home, shim
        shim.heal()


def all_searchable(home, numbers, *, deadline_s=120):
    deadline = time.monotonic() + deadline_s
    while True:
        assert home.process.poll() is None, home.log_tail()
        with contextlib.suppress(Refused):
            reply = home.api.post("/sync", {"timeout_s": 10}, timeout_s=60)
            if reply["is_complete"] and reply["pending"] == 0:
                break
        assert time.monotonic() < deadline, f"{home.status()}\n{home.log_tail()}"
        time.sleep(0.2)  # delayed jobs wait for a clock
    for number in numbers:
        assert home.found_by_words(f"smew{number}x") == {home.files / f"{number}.txt"}, number


def is_sound(home):
    home.stop()
    with contextlib.closing(sqlite3.connect(home.data_dir / "msearchd.db")) as c:
        assert c.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not (home.data_dir / "damaged").exists()  # a disk that fails for a while is no reason to begin anew


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_a_disk_that_fails_every_write_for_seconds_is_told_and_nothing_is_lost(world, number):
    home, shim = world
    shim.fail(number)
    for new in range(5, 15):
        (home.files / f"{new}.txt").write_text(f"in the trouble: smew{new}x")
    deadline = time.monotonic() + 30
    while not any("database cannot be used now" in problem for problem in home.status()["problems"]):
        assert time.monotonic() < deadline, home.status()
        time.sleep(0.1)
    pid = home.process.pid
    time.sleep(5)  # as long as it fails
    assert home.found_by_words("smew3x") == {home.files / "3.txt"}  # searches go on
    assert home.api.get("/status")["state"] != "ready"
    assert shim.failures > 0
    shim.heal()
    all_searchable(home, range(15))
    assert home.process.pid == pid
    assert home.process.poll() is None
    deadline = time.monotonic() + 30
    while home.status()["problems"]:
        assert time.monotonic() < deadline, home.status()
        time.sleep(0.2)
    assert home.api.post("/system/verify", {"repair": False}, timeout_s=60)["is_clean"]
    is_sound(home)


@pytest.mark.slow
def test_an_error_at_the_nth_call_costs_nothing(world):
    home, shim = world
    seed = int(os.environ.get("MSEARCHD_SEED", "0")) or random.SystemRandom().randrange(10**6)
    spread = random.Random(seed)
    numbers = list(range(5))
    for at in sorted(spread.sample(range(1, 120), 40 if IS_LONG else 6)):
        number = spread.choice([errno.EIO, errno.ENOSPC])
        shim.fail(number, first=at, count=spread.choice([1, 2, 5]))
        for _ in range(3):
            numbers.append(len(numbers))
            (home.files / f"{numbers[-1]}.txt").write_text(f"call {at}: smew{numbers[-1]}x")
        all_searchable(home, numbers[-3:])
    assert shim.failures > 0, f"seed {seed}"
    shim.heal()
    all_searchable(home, numbers)
    assert home.api.post("/system/verify", {"repair": False}, timeout_s=60)["is_clean"]
    is_sound(home)
    assert not home.tracebacks()


@pytest.mark.slow
def test_a_database_locked_for_half_a_minute_is_told_and_passes(world):
    home, _ = world
    with contextlib.closing(sqlite3.connect(home.data_dir / "msearchd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for new in range(5, 10):
            (home.files / f"{new}.txt").write_text(f"under the lock: smew{new}x")
        told = False
        while time.monotonic() - began < 30:
            told = told or any("locked" in problem for problem in home.status()["problems"])
            assert home.found_by_words("smew1x") == {home.files / "1.txt"}
            time.sleep(0.5)
        assert told
        other.execute("ROLLBACK")
    all_searchable(home, range(10))
    is_sound(home)
