"""The database file under its own feet: moved, replaced, removed, on a disk that is away; and what becomes of its log."""

import asyncio
import contextlib
import os
import sqlite3

import pytest

from msearchd.aio.sqlite import Database
from msearchd.orchestrator.file_place import FilePlace, Standing
from msearchd.orchestrator.integrity import Integrity


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "data" / "db" if (tmp_path / "data").mkdir() is None else None)
    await database.write(lambda c: c.execute("CREATE TABLE t (a)").fetchall())
    yield database
    await database.close()


class Told:
    def __init__(self):
        self.anew, self.reopened, self.held = [], [], []

    async def hold(self):
        self.held.append(True)

    async def release(self):
        self.held.append(False)

    def integrity(self, database, **times):
        return Integrity(
            database, was_unclean=False, begin_anew=self.anew.append, reopen=self.reopened.append,
            hold=self.hold, release=self.release, **{"look_every_s": 30, "settle_s": 0.3, **times},
        )  # fmt: skip


@contextlib.asynccontextmanager
async def nudged(integrity):
    """Running, and nudged as the watcher does."""

    async def tick():
        while True:
            integrity.nudge()
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(integrity.run()), asyncio.create_task(tick())]
    try:
        yield tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def replace(path, text="other"):
    """Another database in the place of this one, its log left lying, as `mv` and `rsync` do."""
    other = path.with_name("other")
    with contextlib.closing(sqlite3.connect(other)) as c:
        c.execute(f"CREATE TABLE {text} (a)")
        c.commit()
    other.replace(path)


async def test_a_file_that_was_replaced_holds_work_and_is_opened_once_nobody_writes_it(database):
    told = Told()
    integrity = told.integrity(database)
    async with nudged(integrity) as running:
        await asyncio.sleep(0.1)
        assert (told.held, integrity.problems()) == ([], ())
        replace(database.path)
        await until(integrity.problems)
        assert told.held == [True]
        assert "replaced by another" in integrity.problems()[0]
        for _ in range(6):  # the copy goes on
            await asyncio.sleep(0.1)
            with database.path.open("ab") as file:
                file.write(b"more")
        assert told.reopened == []
        await running
    assert "was replaced by another file" in told.reopened[0]
    assert told.anew == []


async def test_a_file_that_was_moved_away_and_back_goes_on(database):
    told = Told()
    integrity = told.integrity(database)
    async with nudged(integrity) as running:
        await asyncio.sleep(0.05)
        database.path.rename(database.path.with_name("aside"))
        await until(integrity.problems)
        database.path.with_name("aside").rename(database.path)
        await until(lambda: told.held == [True, False])
        assert integrity.problems() == ()
        assert not running.done()
    assert (told.anew, told.reopened) == ([], [])


async def test_a_file_that_is_removed_and_copied_back_is_opened_and_not_made_anew(database):
    told = Told()
    integrity = told.integrity(database)
    async with nudged(integrity) as running:
        await asyncio.sleep(0.05)
        database.path.unlink()
        await until(integrity.problems)
        replace(database.path)
        await running
    assert told.reopened
    assert told.anew == []


async def test_a_data_folder_that_is_removed_is_begun_anew(database, tmp_path):
    told = Told()
    async with nudged(told.integrity(database)) as running:
        await asyncio.sleep(0.05)
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        await running
    assert "removed" in told.anew[0]
    (tmp_path / "elsewhere").rename(tmp_path / "data")


def test_a_file_on_a_disk_that_is_away_is_not_removed(tmp_path, monkeypatch):
    (tmp_path / "db").touch()
    place = FilePlace(tmp_path / "db")
    place._own = (place._own[0] + 1, place._own[1])  # another disk than the folder's, as after umount
    (tmp_path / "db").unlink()
    assert place.look().standing is Standing.AWAY


def test_the_log_of_the_replaced_file_is_dropped_and_the_other_files_own_is_kept(tmp_path):
    path, log, memory = (tmp_path / name for name in ("db", "db-wal", "db-shm"))
    for file in (path, log, memory):
        file.touch()
    place = FilePlace(path)
    assert place.look().standing is Standing.HERE
    (tmp_path / "new").touch()
    (tmp_path / "new").replace(path)
    (tmp_path / "new-wal").write_text("the other file's log")
    os.replace(tmp_path / "new-wal", log)
    assert place.look().standing is Standing.OTHER
    assert place.drop_logs() == [memory]
    assert log.read_text() == "the other file's log"
    assert not memory.exists()
