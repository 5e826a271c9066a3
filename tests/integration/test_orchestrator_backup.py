"""A backup that is killed leaves a folder without a name: the next start, or the next backup, removes it, and no other."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from msearchd import errors
from msearchd.orchestrator.backup import Backup
from msearchd.orchestrator.backup_parts import NOTE, BackupParts, part_of

FILLS = """
import sys, time
from pathlib import Path
from msearchd.orchestrator.backup_parts import BackupParts
with BackupParts(Path(sys.argv[1])).made(Path(sys.argv[2])):
    (Path(sys.argv[2]) / "msearchd.db").write_text("half")
    print("made", flush=True)
    time.sleep(60)
"""


class Database:
    def __init__(self):
        self.is_slow = asyncio.Event()

    async def backup(self, target):
        target.write_text("a copy")
        await self.is_slow.wait()


class Store:
    @contextlib.asynccontextmanager
    async def held_still(self):
        yield None


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def part(tmp_path):
    return part_of(tmp_path / "backup")


@pytest.fixture
def filling(data_dir, part):
    """Another process that fills *part*; killed when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, "-c", FILLS, str(data_dir), str(part)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "made\n"
    yield process
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_what_a_killed_backup_left_is_removed_at_the_next_start(data_dir, part, filling):
    kill(filling)
    assert (part / "msearchd.db").exists()
    assert BackupParts(data_dir).sweep() == [part]
    assert not part.exists()
    assert not (data_dir / NOTE).exists()
    assert BackupParts(data_dir).sweep() == []


def test_a_running_backup_is_never_removed(data_dir, part, filling):
    assert BackupParts(data_dir).sweep() == []
    assert (part / "msearchd.db").exists()
    with pytest.raises(errors.BadRequest, match="another backup is being written"), BackupParts(data_dir).made(part):
        pass
    assert (part / "msearchd.db").exists()
    kill(filling)
    assert BackupParts(data_dir).sweep() == [part]


@pytest.mark.parametrize("is_link", [False, True])
def test_a_file_or_a_link_where_a_backup_is_to_be_filled_is_told_and_left_alone(data_dir, part, tmp_path, is_link):
    (tmp_path / "mine").mkdir()
    if is_link:
        part.symlink_to(tmp_path / "mine")
    else:
        part.write_text("mine")
    with pytest.raises(errors.BadRequest, match="in the way"), BackupParts(data_dir).made(part):
        pass
    assert part.is_symlink() == is_link
    assert part.exists()
    assert not (data_dir / NOTE).exists()


def test_what_is_not_noted_is_never_removed(data_dir, tmp_path):
    (tmp_path / ".other.part").mkdir()
    (tmp_path / "mine").mkdir()
    for text in ("no json", json.dumps({"a": 1}), json.dumps(["/", str(tmp_path / "mine"), ".relative.part", 7])):
        (data_dir / NOTE).write_text(text)
        assert BackupParts(data_dir).sweep() == []
    assert (tmp_path / ".other.part").is_dir()
    assert (tmp_path / "mine").is_dir()


def test_a_link_in_the_place_of_a_left_over_is_left_alone(data_dir, part, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").touch()
    part.symlink_to(tmp_path / "mine")
    (data_dir / NOTE).write_text(json.dumps([str(part)]))
    assert BackupParts(data_dir).sweep() == []
    assert (tmp_path / "mine" / "a.txt").exists()


def test_a_left_over_on_a_disk_that_is_away_is_removed_once_it_is_back(data_dir, tmp_path):
    part = tmp_path / "disk" / ".backup.part"
    (data_dir / NOTE).write_text(json.dumps([str(part)]))
    assert BackupParts(data_dir).sweep() == []
    part.mkdir(parents=True)
    assert BackupParts(data_dir).sweep() == [part]


async def test_the_next_backup_removes_what_a_dead_one_left_elsewhere(data_dir, part, filling, tmp_path):
    kill(filling)
    database = Database()
    database.is_slow.set()
    await Backup(database=database, store=Store(), data_dir=data_dir).run(tmp_path / "second", has_vectors=True)
    assert not part.exists()
    assert (tmp_path / "second" / "msearchd.db").read_text() == "a copy"
    assert not (data_dir / NOTE).exists()


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.05])
async def test_a_backup_that_is_cancelled_leaves_nothing(data_dir, part, tmp_path, after_s):
    running = asyncio.create_task(
        Backup(database=Database(), store=Store(), data_dir=data_dir).run(tmp_path / "backup", has_vectors=True)
    )
    await asyncio.sleep(after_s)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not part.exists()
    assert not (data_dir / NOTE).exists()
    part.mkdir()
    fd = os.open(part, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    os.close(fd)


async def test_a_sweep_waits_for_the_backup_that_runs(data_dir, part, tmp_path):
    database = Database()
    backup = Backup(database=database, store=Store(), data_dir=data_dir)
    running = asyncio.create_task(backup.run(tmp_path / "backup", has_vectors=True))
    deadline = time.monotonic() + 10
    while not (part / "msearchd.db").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    sweeping = asyncio.create_task(backup.sweep())
    await asyncio.sleep(0.1)
    assert (part / "msearchd.db").exists()
    database.is_slow.set()
    await running
    await sweeping
    assert (tmp_path / "backup" / "msearchd.db").exists()
