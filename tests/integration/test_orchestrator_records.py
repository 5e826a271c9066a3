"""Opening what must survive: damaged, emptied, missing, from a newer program; the list of folders; what is set aside."""

import asyncio
import contextlib
import datetime as dt
import os
import sqlite3
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.aio.aside import set_aside, told
from msearchd.aio.sqlite import Database
from msearchd.orchestrator import folders_file
from msearchd.orchestrator.integrity import Integrity
from msearchd.orchestrator.records import open_records
from msearchd.settings.model import QueueSettings

NOW = dt.datetime(2026, 5, 1, 12, 0, 0, tzinfo=dt.UTC)


@contextlib.asynccontextmanager
async def records(data_dir, **options):
    found = await open_records(data_dir, QueueSettings(), **options)
    try:
        yield found
    finally:
        await found.close(data_dir)


async def test_a_clean_end_leaves_no_mark_and_any_other_does(tmp_path):
    async with records(tmp_path) as first:
        assert not first.was_unclean
        assert (tmp_path / "running").exists()
    assert not (tmp_path / "running").exists()
    (tmp_path / "running").touch()
    async with records(tmp_path) as second:
        assert second.was_unclean


async def test_a_new_data_folder_is_no_damage(tmp_path):
    (tmp_path / "msearchd.db").touch()  # killed in the first millisecond of the first start
    async with records(tmp_path):
        assert not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("content", [b"", bytes(50_000), b"\xa5" * 50_000], ids=["empty", "zeros", "noise"])
async def test_a_file_that_is_no_database_any_more_is_set_aside_and_a_new_one_never_meets_its_log(tmp_path, content):
    async with records(tmp_path):
        folders_file.write(tmp_path / "folders.json", [b"/docs"])
    (tmp_path / "msearchd.db").write_bytes(content)
    (tmp_path / "msearchd.db-wal").write_bytes(b"the old log")
    async with records(tmp_path) as anew:
        assert await anew.catalog.roots() == []
        assert await anew.database.problems(is_quick=False) == []
    (kept,) = (tmp_path / "damaged").iterdir()
    assert (kept / "msearchd.db").read_bytes() == content
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    (sentence,) = told(tmp_path, now=dt.datetime.now(dt.UTC))
    assert os.fspath(kept) in sentence


async def test_a_newer_programs_database_is_never_set_aside(tmp_path):
    async with records(tmp_path) as found:
        await found.database.write(lambda c: c.execute("UPDATE component_version SET version = 99").rowcount)
    with pytest.raises(errors.Misconfigured, match="newer"):
        await open_records(tmp_path, QueueSettings())
    assert not (tmp_path / "damaged").exists()


def test_only_the_last_two_that_were_set_aside_are_kept_and_told_for_two_weeks(tmp_path):
    for day in range(4):
        (tmp_path / "db").write_text(f"{day}")
        set_aside(tmp_path, [tmp_path / "db"], reason=f"reason {day}", now=NOW + dt.timedelta(days=day))
    kept = sorted((tmp_path / "damaged").iterdir())
    assert [(folder / "db").read_text() for folder in kept] == ["2", "3"]
    assert len(told(tmp_path, now=NOW + dt.timedelta(days=4))) == 2
    assert told(tmp_path, now=NOW + dt.timedelta(days=30)) == []
    assert told(tmp_path / "nowhere", now=NOW) == []


@given(st.lists(st.binary(max_size=40).map(lambda name: b"/" + name.replace(b"\0", b"x")), max_size=6))
def test_any_list_of_folders_is_read_as_it_was_written(tmp_path_factory, folders):
    file = tmp_path_factory.mktemp("list") / "folders.json"
    folders_file.write(file, folders)
    assert folders_file.read(file) == folders
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', "[1, null]", '["relative"]', "[" * 100_000])
def test_a_list_that_is_none_is_no_folder(tmp_path, text):
    (tmp_path / "folders.json").write_text(text)
    assert folders_file.read(tmp_path / "folders.json") == []
    assert folders_file.read(tmp_path / "missing.json") == []


# -- integrity -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "db")
    await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER, s TEXT) STRICT").rowcount)
    await database.write(
        lambda c: c.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(500)]).rowcount
    )
    await database.checkpoint()
    yield database
    await database.close()


def tear(path):
    with path.open("r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xff" * 8192)


def lies(_: sqlite3.Connection) -> None:
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


@contextlib.asynccontextmanager
async def running(integrity):
    task = asyncio.create_task(integrity.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition, *, deadline_s=5.0):
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_torn_page_is_found_by_the_check_after_an_unclean_end(database, tmp_path):
    tear(tmp_path / "db")
    said = []
    await Integrity(database, was_unclean=True, begin_anew=said.append, after_s=0).run()
    assert said


async def test_damage_that_an_operation_meets_is_checked_and_begun_anew(database, tmp_path):
    said = []
    integrity = Integrity(database, was_unclean=False, begin_anew=said.append)
    tear(tmp_path / "db")
    await database.write(lambda c: c.execute("PRAGMA cache_size = 1").fetchall())
    with pytest.raises(errors.Misconfigured, match="damaged"):
        await database.read(lambda c: c.execute("SELECT sum(length(s)) FROM t").fetchone())
    await integrity.run()
    assert said


async def test_a_sound_file_that_was_called_damaged_once_is_left_alone_and_told(database):
    said = []
    integrity = Integrity(database, was_unclean=False, begin_anew=said.append)
    with pytest.raises(errors.Misconfigured):
        await database.write(lies)
    async with running(integrity):
        await until(integrity.problems)
        assert said == []
        assert "msearch verify --repair" in integrity.problems()[0]
        with pytest.raises(errors.Misconfigured):
            await database.write(lies)  # a second false alarm is looked into as the first was
        assert said == []


async def test_damage_after_a_false_alarm_is_still_found(database, tmp_path):
    said = []
    integrity = Integrity(database, was_unclean=False, begin_anew=said.append, rest_s=0)
    with pytest.raises(errors.Misconfigured):
        await database.write(lies)
    async with running(integrity):
        await until(integrity.problems)
        tear(tmp_path / "db")
        with pytest.raises(errors.Misconfigured):
            await database.write(lies)
        await until(lambda: said)


async def test_a_file_emptied_under_the_daemon_is_damaged_though_sqlite_calls_it_sound(database, tmp_path):
    said = []
    integrity = Integrity(database, was_unclean=False, begin_anew=said.append)
    os.truncate(tmp_path / "db", 0)
    with pytest.raises(errors.Misconfigured):
        await database.write(lies)
    await integrity.run()
    assert said == ["the file has become empty"]


async def test_a_file_removed_under_the_daemon_is_noticed_without_any_error_of_sqlite(database, tmp_path):
    said = []
    integrity = Integrity(database, was_unclean=False, begin_anew=said.append, look_every_s=0.01, settle_s=0.1)
    async with running(integrity):
        await asyncio.sleep(0.05)
        assert said == []
        (tmp_path / "db").unlink()
        await until(lambda: said)
    assert "removed" in said[0]
