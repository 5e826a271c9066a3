"""The database actor: acknowledged is committed, one failure hurts one operation, and what we need of aiosqlite holds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time

import aiosqlite
import pytest

from msearchd import errors
from msearchd.aio import sqlite as aio_sqlite
from msearchd.aio.sqlite import DamagedDatabase, Database, migrate, named_queries, statements, translated


@pytest.fixture
async def database(tmp_path):
    database = await Database.open(tmp_path / "db")
    await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").rowcount)
    yield database
    await database.close()


def insert(n: int):
    return lambda c: c.execute("INSERT INTO t VALUES (?)", (n,)).rowcount


async def numbers(database: Database) -> list[int]:
    return await database.read(lambda c: [row[0] for row in c.execute("SELECT n FROM t ORDER BY n")])


async def test_aiosqlite_runs_a_whole_function_on_its_own_thread_as_we_need(tmp_path):
    connection = await aiosqlite.connect(tmp_path / "x")
    assert isinstance(connection._conn, sqlite3.Connection)
    thread = await connection._execute(lambda c: (c.execute("SELECT 1"), threading.get_ident())[1], connection._conn)
    assert thread != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await connection._execute(lambda _: 1 / 0, connection._conn)
    await connection.close()


async def test_the_file_is_private_and_so_are_its_companions(database):
    await database.write(insert(1))
    for suffix in ("", "-wal", "-shm"):
        mode = stat.S_IMODE(os.stat(f"{database.path}{suffix}").st_mode)
        assert mode == 0o600, suffix


async def test_what_was_acknowledged_is_seen_by_every_reader(database):
    for n in range(20):
        await database.write(insert(n))
        assert n in await numbers(database)


async def test_operations_of_one_tick_share_a_transaction(database):
    seen: list[int] = []

    def note(c: sqlite3.Connection) -> None:
        seen.append(c.total_changes)

    commits = 0

    def count(statement: str) -> None:
        nonlocal commits
        commits += statement == "COMMIT"

    await database.write(lambda c: c.set_trace_callback(count))
    await asyncio.gather(*(database.write(insert(n)) for n in range(100)))
    await database.write(lambda c: c.set_trace_callback(None))
    assert commits <= 3
    assert len(await numbers(database)) == 100


async def test_a_failing_operation_hurts_itself_alone_and_order_is_kept(database):
    results = await asyncio.gather(*(database.write(insert(n)) for n in (1, 2, 2, 3, 1, 4)), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["int", "int", "Bug", "int", "Bug", "int"]
    assert await numbers(database) == [1, 2, 3, 4]


async def test_an_operation_that_hides_a_rollback_never_commits_half(database):
    def hides(c: sqlite3.Connection) -> None:
        c.execute("INSERT INTO t VALUES (50)")
        c.execute("ROLLBACK")  # as SQLite does by itself on a full disk

    results = await asyncio.gather(
        database.write(insert(1)), database.write(hides), database.write(insert(2)), return_exceptions=True
    )
    assert isinstance(results[1], errors.RetryLater)
    assert await numbers(database) == [1, 2]


async def test_a_cancelled_writer_stops_nobody_and_its_effect_stands(database):
    tasks = [asyncio.create_task(database.write(insert(n))) for n in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await database.write(lambda c: c.total_changes)
    assert await numbers(database) == list(range(10))


async def test_a_reader_sees_one_snapshot_however_many_statements_it_runs(database):
    started, go_on = threading.Event(), threading.Event()

    def twice(c: sqlite3.Connection) -> tuple[int, int]:
        first = c.execute("SELECT count(*) FROM t").fetchone()[0]
        started.set()
        go_on.wait(5)
        return first, c.execute("SELECT count(*) FROM t").fetchone()[0]

    reading = asyncio.create_task(database.read(twice))
    await asyncio.to_thread(started.wait, 5)
    await database.write(insert(1))
    go_on.set()
    assert await reading == (0, 0)


async def test_a_reader_cannot_write(database):
    with pytest.raises(errors.RetryLater, match=r"readonly|read-only"):
        await database.read(insert(1))


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


async def test_a_cancelled_read_is_interrupted_and_its_connection_serves_again(tmp_path):
    database = await Database.open(tmp_path / "db", readers=1)
    reading = asyncio.create_task(database.read(lambda c: c.execute(ENDLESS).fetchone()))
    await asyncio.sleep(0.1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.wait_for(database.read(lambda c: c.execute("SELECT 7").fetchone()[0]), 5) == 7
    await database.close()


async def test_close_finishes_what_was_handed_in_and_refuses_the_rest(tmp_path):
    database = await Database.open(tmp_path / "db")
    await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER) STRICT").rowcount)
    last = [asyncio.create_task(database.write(insert(n))) for n in range(5000)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*last) == [1] * 5000
    with pytest.raises(errors.RetryLater, match="closing"):
        await database.write(insert(1))
    with pytest.raises(errors.RetryLater, match="closing"):
        await database.read(insert(1))
    await database.close()


async def test_a_second_close_waits_for_nothing(database):
    await database.close()
    await database.close()


async def test_commits_are_synced_by_themselves_when_it_is_quiet(tmp_path, monkeypatch):
    monkeypatch.setattr(aio_sqlite, "_IDLE_S", 0.05)
    database = await Database.open(tmp_path / "db")
    await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER) STRICT").rowcount)
    wal = tmp_path / "db-wal"
    async with asyncio.timeout(5):
        while wal.stat().st_size:
            await asyncio.sleep(0.01)
    assert not database._needs_checkpoint
    await database.close()


async def test_a_long_reader_never_holds_up_a_checkpoint_or_a_writer(database):
    started, go_on = threading.Event(), threading.Event()

    def hold(c: sqlite3.Connection) -> None:
        c.execute("SELECT count(*) FROM t").fetchone()
        started.set()
        go_on.wait(10)

    reading = asyncio.create_task(database.read(hold))
    await asyncio.to_thread(started.wait, 5)
    await database.write(insert(1))
    began = time.monotonic()
    await database.checkpoint()
    await database.write(insert(2))
    assert time.monotonic() - began < 1
    go_on.set()
    await reading


async def test_a_backup_is_whole_private_and_taken_while_work_goes_on(database, tmp_path):
    await asyncio.gather(*(database.write(insert(n)) for n in range(1000)))
    target = tmp_path / "copy.db"
    writing = [asyncio.create_task(database.write(insert(n))) for n in range(1000, 1500)]
    await database.backup(target)
    await asyncio.gather(*writing)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    copy = sqlite3.connect(target)
    assert copy.execute("SELECT count(*) FROM t").fetchone()[0] >= 1000
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    copy.close()
    with pytest.raises(errors.BadRequest, match="exists"):
        await database.backup(target)
    with pytest.raises(errors.RetryLater, match="cannot write"):
        await database.backup(tmp_path / "nowhere" / "copy.db")


async def test_a_damaged_file_is_found_out(tmp_path):
    database = await Database.open(tmp_path / "db")
    await database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER, s TEXT) STRICT").rowcount)
    await database.write(
        lambda c: c.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(500)]).rowcount
    )
    assert await database.problems(is_quick=False) == []
    await database.close()
    with (tmp_path / "db").open("r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xff" * 8192)
    database = await Database.open(tmp_path / "db")
    try:
        found = await database.problems()
    except errors.Misconfigured as error:
        found = [str(error)]
    await database.close()
    assert found


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, errors.RetryLater),
        (sqlite3.SQLITE_BUSY, errors.RetryLater),
        (sqlite3.SQLITE_IOERR | (3 << 8), errors.RetryLater),
        (sqlite3.SQLITE_READONLY, errors.RetryLater),
        (sqlite3.SQLITE_CORRUPT, DamagedDatabase),
        (sqlite3.SQLITE_NOTADB, DamagedDatabase),
        (sqlite3.SQLITE_CONSTRAINT, errors.Bug),
        (sqlite3.SQLITE_ERROR, errors.Bug),
        (None, errors.Bug),
    ],
)
def test_each_result_code_is_one_of_our_verbs(code, kind):
    error = sqlite3.OperationalError("x")
    if code is not None:
        error.sqlite_errorcode = code
    found = translated(error)
    assert type(found) is kind
    assert found.__cause__ is error


def test_other_errors_stay_what_they_are():
    error = ValueError("x")
    assert translated(error) is error


# -- migrations and queries ----------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "sqlpack"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "sqlpack", raising=False)
    return folder


async def test_migrations_run_once_each_and_in_order(database, package):
    (package / "0001_one.sql").write_text("CREATE TABLE a (n INTEGER) STRICT;\nINSERT INTO a VALUES (1);")
    await migrate(database, component="x", package="sqlpack")
    (package / "0002_two.sql").write_text("INSERT INTO a SELECT n + 1 FROM a;")
    await migrate(database, component="x", package="sqlpack")
    await migrate(database, component="x", package="sqlpack")
    assert await database.read(lambda c: c.execute("SELECT n FROM a ORDER BY n").fetchall()) == [(1,), (2,)]


async def test_a_migration_that_fails_midway_leaves_the_last_good_version(database, package):
    (package / "0001_one.sql").write_text("CREATE TABLE a (n INTEGER) STRICT;")
    (package / "0002_two.sql").write_text("CREATE TABLE b (n INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);")
    with pytest.raises(errors.Bug):
        await migrate(database, component="x", package="sqlpack")
    names = await database.read(lambda c: {row[0] for row in c.execute("SELECT name FROM sqlite_master")})
    version = await database.read(lambda c: c.execute("SELECT version FROM component_version").fetchone()[0])
    assert "a" in names
    assert "b" not in names
    assert version == 1


async def test_a_newer_database_is_never_touched(database, package):
    (package / "0001_one.sql").write_text("CREATE TABLE a (n INTEGER) STRICT;")
    await migrate(database, component="x", package="sqlpack")
    await database.write(lambda c: c.execute("UPDATE component_version SET version = 9").rowcount)
    with pytest.raises(errors.Misconfigured, match="newer"):
        await migrate(database, component="x", package="sqlpack")


def test_a_trigger_with_semicolons_inside_is_one_statement():
    script = """
    CREATE TABLE a (n INTEGER); -- a comment; with one
    CREATE TRIGGER t AFTER INSERT ON a BEGIN
      UPDATE a SET n = 1;
      DELETE FROM a;
    END;
    """
    assert len(statements(script)) == 2


def test_two_queries_of_one_name_are_refused(package):
    (package / "queries.sql").write_text("-- a --  One.\nSELECT 1;\n-- a --  Two.\nSELECT 2;\n")
    with pytest.raises(errors.Bug, match="more than one"):
        named_queries("sqlpack")
