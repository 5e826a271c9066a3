"""What breaks watchers: lost events, dead readers, full limits, roots that go and come back, a sink that refuses."""

import asyncio
import errno
import os
import shutil
import signal
import sys
import threading

import pytest
from watch_world import ONE, MemoryTree, differences, state_of, until, watching

from msearchd import errors
from msearchd.domain.asset import RootState
from msearchd.settings import WatchSettings
from msearchd.watch import watcher as watcher_module
from msearchd.watch.changes import FileSeen
from msearchd.watch.sources import inotify_abi as abi

linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify")


@pytest.fixture(autouse=True)
def quick_tending(monkeypatch):
    monkeypatch.setattr(watcher_module, "_TEND_EVERY_S", 0.1)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    for n in range(30):
        (folder / f"{n}.txt").write_text(f"{n}")
    return folder


def source_of(watcher):
    return watcher._sources._local


# -- lost events -------------------------------------------------------------------------------------------------------


@linux
async def test_a_stopped_reader_overflows_the_kernels_queue_and_the_scan_repairs_it(root, tmp_path):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        os.kill(source_of(watcher)._drain.pid, signal.SIGSTOP)
        for folder in range(60):
            (root / f"d{folder}").mkdir()
        name, extra = os.fsencode(root) + b"/churn", 9000  # 2 events each, none alike as its neighbour
        for n in range(extra):
            os.close(os.open(name + b"%d" % (n % 50), os.O_CREAT | os.O_WRONLY))
            os.unlink(name + b"%d" % (n % 50))
        (root / "d7" / "in.txt").write_text("x")
        (root / "0.txt").unlink()
        os.kill(source_of(watcher)._drain.pid, signal.SIGCONT)
        await until(lambda: watcher.snapshot().overflows > 0, deadline_s=20)
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        (root / "d8" / "after.txt").write_text("x")
        await until(lambda: b"d8/after.txt" in memory.all_files())


@linux
async def test_a_killed_reader_is_replaced_and_what_it_held_is_found(root, tmp_path):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        first = source_of(watcher)._drain.pid
        os.kill(first, signal.SIGSTOP)
        (root / "meanwhile.txt").write_text("x")
        os.kill(first, signal.SIGKILL)
        await until(lambda: b"meanwhile.txt" in memory.all_files())
        assert watcher.snapshot().restarts == 1
        (root / "later.txt").write_text("x")
        await until(lambda: b"later.txt" in memory.all_files())
        assert source_of(watcher)._drain.pid != first


@linux
async def test_a_barrier_whose_cookie_was_lost_in_an_overflow_is_told_at_once(root, tmp_path, monkeypatch):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        source = source_of(watcher)
        os.kill(source._drain.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(source.barrier(deadline_s=60))
        await until(lambda: source._cookies._waiting)
        source._on_events(abi.OVERFLOW_EVENT)
        async with asyncio.timeout(10):
            assert await waiting is False
        os.kill(source._drain.pid, signal.SIGCONT)


@linux
async def test_a_reader_that_dies_while_the_watcher_stops_has_no_successor(root, tmp_path):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        source = source_of(watcher)
        os.kill(source._drain.pid, signal.SIGKILL)
    source._on_drain_end("killed")
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "inotify-restart"]


@linux
async def test_a_reader_that_hangs_is_noticed_by_the_probe(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import choice, inotify

    monkeypatch.setattr(
        choice.Sources, "_make",
        lambda self: inotify.InotifySource(
            notify=self._notify, state_dir=self._state_dir, probe_every_s=0.1, probe_deadline_s=0.3),
    )  # fmt: skip
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        os.kill(source_of(watcher)._drain.pid, signal.SIGSTOP)
        (root / "unheard.txt").write_text("x")
        await until(lambda: b"unheard.txt" in memory.all_files())
        assert watcher.snapshot().restarts >= 1


@linux
async def test_the_reader_dies_with_the_daemon(root, tmp_path):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, _):
        await watcher.sync(deadline_s=20)
        pid = source_of(watcher)._drain.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@linux
async def test_over_the_watch_limit_folders_are_swept_and_the_status_says_what_to_type(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import sweep

    real, budget = abi.add_watch, [3]

    def limited(fd, path, mask):
        if budget[0] <= 0 and b"proc" in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        budget[0] -= 1
        return real(fd, path, mask)

    for n in range(6):
        (root / f"d{n}").mkdir()
    monkeypatch.setattr(sweep, "_EVERY_S", 0.2)
    monkeypatch.setattr(abi, "add_watch", limited)
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        status = watcher.snapshot()
        assert (status.health, status.dirs_unwatched > 0) == ("degraded", True)
        assert "sysctl fs.inotify.max_user_watches=" in status.advice
        for n in range(6):
            (root / f"d{n}" / "f.txt").write_text("x")
        await until(lambda: len(memory.all_files()) == 36)
        monkeypatch.setattr(abi, "add_watch", real)  # the limit was raised
        (root / "d5" / "g.txt").write_text("x")
        await until(lambda: b"d5/g.txt" in memory.all_files())
        await watcher.scan_now(ONE)
        assert watcher.snapshot().health == "ok"


@linux
async def test_over_the_watch_limit_the_folders_in_use_are_watched_and_the_rest_is_swept(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import sweep

    real_add, real_rm, live = abi.add_watch, abi.rm_watch, set()

    def limited(fd, path, mask):
        wd = real_add(fd, path, mask)
        if wd not in live and b"proc" in path and len(live) >= 6:
            real_rm(fd, wd)
            raise OSError(errno.ENOSPC, "No space left on device")
        live.add(wd) if b"proc" in path else None
        return wd

    def removed(fd, wd):
        live.discard(wd)
        real_rm(fd, wd)

    for n in range(20):
        (root / f"d{n:02}").mkdir()
        os.utime(root / f"d{n:02}", (10**9, 10**9))  # long ago
    monkeypatch.setattr(sweep, "_EVERY_S", 0.1)
    monkeypatch.setattr(abi, "add_watch", limited)
    monkeypatch.setattr(abi, "rm_watch", removed)
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert watcher.snapshot().dirs_unwatched == 15

        def watched():
            return {path for path, wd in source_of(watcher)._tree.paths_of(ONE) if wd is not None}

        in_use = sorted({b"d%02d" % n for n in range(20)} - watched())[:3]
        for name in in_use:
            (root / os.fsdecode(name) / "a.txt").write_text("x")
        await until(lambda: set(in_use) <= watched(), deadline_s=15)
        assert len(watched()) == 6
        assert b"" in watched(), "a root keeps its watch"
        for n in range(20):
            (root / f"d{n:02}" / "b.txt").write_text("x")
        await until(lambda: len(memory.all_files()) == 53, deadline_s=15)
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []


@linux
async def test_an_event_of_a_watch_that_nobody_knows_is_a_scan_and_the_status_says_so(root, tmp_path):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        path = root / "1.txt"
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"!", 0)  # no event tells while it is open
            source_of(watcher)._on_events(abi.HEADER.pack(1_000_000, abi.CREATE, 0, 0))
            await until(lambda: differences(memory, root) == [])
        assert "not in the books" in watcher.snapshot().last_doubt


@linux
async def test_a_folder_that_may_not_be_read_is_told_kept_and_read_once_it_may_be(root, tmp_path, monkeypatch):
    (root / "locked").mkdir()
    (root / "locked" / "a.txt").write_text("x")
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        real = os.open

        def refuses(path, flags, *args, **kwargs):
            if path == b"locked":
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, flags, *args, **kwargs)

        monkeypatch.setattr(os, "open", refuses)  # a person does chmod 000; root may read all the same
        (root / "locked").chmod(0o000)
        await until(lambda: watcher.snapshot().health == "degraded")
        assert "locked cannot be read (EACCES: Permission denied)" in watcher.snapshot().advice
        await watcher.scan_now(ONE)
        assert b"locked/a.txt" in memory.all_files()
        monkeypatch.setattr(os, "open", real)
        (root / "locked" / "b.txt").write_text("x")
        (root / "locked").chmod(0o755)
        await until(lambda: watcher.snapshot().health == "ok")
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []


@linux
async def test_no_inotify_instance_left_means_looking_by_the_clock(root, tmp_path, monkeypatch):
    def none_left():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(abi, "init", none_left)
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 30
        assert watcher.snapshot().roots[0].backend == "polling"


# -- watchdog's defects ------------------------------------------------------------------------------------------------


async def recovers(watcher, memory, root):
    (root / "proof.txt").write_text("x")
    await until(lambda: b"proof.txt" in memory.all_files(), deadline_s=15)


@linux
async def test_watchdog_1_3_1_four_ordinary_operations_that_kill_its_reader_are_survived(root, tmp_path):
    """Move a folder to the trash, make it anew, remove it, empty the trash."""
    async with watching(root, tmp_path / "state", backend="watchdog") as (watcher, memory):
        (root / "a").mkdir()
        await watcher.sync(deadline_s=20)
        died = threading.Event()
        source = source_of(watcher)
        before = source._on_thread_death
        source._hook._on_death = lambda *args: (died.set(), before(*args))
        out = tmp_path / "out"
        out.mkdir()
        (root / "a").rename(out / "a")
        await asyncio.sleep(0.8)  # its pairing time for the two halves of a move
        (root / "a").mkdir()
        await asyncio.sleep(0.2)
        (root / "a").rmdir()
        shutil.rmtree(out / "a")
        await asyncio.sleep(0.5)
        assert died.is_set(), "watchdog is cured: this guard may go"
        for n in range(20):
            (root / f"after{n}.txt").write_text("x")
        await until(lambda: b"after19.txt" in memory.all_files(), deadline_s=15)
        assert watcher.snapshot().restarts >= 1
        await recovers(watcher, memory, root)
        assert differences(memory, root) == []


@linux
async def test_watchdog_1_3_2_listing_thousands_of_folders_does_not_overflow_it(root, tmp_path):
    """With its default mask our own scan of 10k folders makes 20k events, an overflow, a rebuild, and so on for ever."""
    for n in range(60):
        for m in range(60):
            (root / f"d{n}" / f"e{m}").mkdir(parents=True)
    async with watching(root, tmp_path / "state", backend="watchdog") as (watcher, memory):
        await watcher.sync(deadline_s=60)
        for _ in range(3):
            await watcher.scan_now(ONE)
        await asyncio.sleep(0.5)
        assert watcher.snapshot().overflows == 0
        assert watcher.snapshot().last_event_ms == 0  # nobody wrote: nobody was woken
        await recovers(watcher, memory, root)


@linux
async def test_watchdogs_overflow_line_becomes_a_scan(root, tmp_path):
    import logging

    async with watching(root, tmp_path / "state", backend="watchdog") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        source_of(watcher)._observer.unschedule_all()  # deaf, as after an overflow
        (root / "lost.txt").write_text("x")
        logging.getLogger("watchdog.observers.inotify_c").warning(
            "Inotify queue overflowed; filesystem events were lost"
        )
        await until(lambda: b"lost.txt" in memory.all_files())
        assert watcher.snapshot().overflows == 1


@linux
async def test_a_deaf_watchdog_is_noticed_by_its_probe(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import watchdog

    monkeypatch.setattr(watchdog, "_PROBE_DEADLINE_S", 0.5)
    monkeypatch.setattr(watchdog, "_PROBE_EVERY_S", 0.2)
    monkeypatch.setattr(watchdog.WatchdogSource.__init__, "__kwdefaults__", {"probe_every_s": 0.2})
    async with watching(root, tmp_path / "state", backend="watchdog") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        source_of(watcher)._observer.unschedule_all()
        (root / "unheard.txt").write_text("x")
        await until(lambda: b"unheard.txt" in memory.all_files())
        assert watcher.snapshot().restarts >= 1


# -- the sink ----------------------------------------------------------------------------------------------------------


async def test_changes_that_the_sink_refused_come_again(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.fail_next = [errors.RetryLater("disk full", after_s=0.1)] * 3
        (root / "new.txt").write_text("x")
        (root / "0.txt").unlink()
        await until(lambda: b"new.txt" in memory.all_files() and b"0.txt" not in memory.all_files())
        assert differences(memory, root) == []


async def test_changes_met_by_a_database_that_is_called_damaged_come_again(root, tmp_path, monkeypatch):
    monkeypatch.setattr("msearchd.watch.watcher._MISCONFIGURED_REST_S", 0.1)
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.fail_next = [errors.Misconfigured("the database is damaged", key="database")] * 2
        (root / "new.txt").write_text("x")
        await until(lambda: b"new.txt" in memory.all_files())
        assert differences(memory, root) == []


async def test_a_root_that_goes_and_comes_while_the_sink_refuses_is_told_afterwards(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.fail_next = [errors.RetryLater("disk full", after_s=0.1)] * 2
        root.rename(tmp_path / "away")
        await until(lambda: memory.states.get(ONE, ("",))[0] is RootState.OFFLINE)
        memory.fail_next = [errors.RetryLater("disk full", after_s=0.1)] * 2
        (tmp_path / "away").rename(root)
        await until(lambda: memory.states[ONE][0] is RootState.ONLINE)
        assert state_of(watcher) is RootState.ONLINE


async def test_a_first_scan_that_the_sink_refused_begins_again(root, tmp_path):
    memory = MemoryTree()
    memory.fail_next = [errors.RetryLater("locked", after_s=0.1)] * 2
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []


async def test_a_bug_in_the_sink_stops_the_service_loudly(root, tmp_path):
    memory = MemoryTree()
    memory.fail_next = [ZeroDivisionError("boom")]
    with pytest.raises(errors.Bug, match="boom"):
        async with watching(root, tmp_path / "state", memory=memory):
            await asyncio.sleep(1)


async def test_sync_that_cannot_be_had_in_time_says_how_far_it_is(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.fail_next = [errors.RetryLater("disk full", after_s=0.2)] * 20
        (root / "new.txt").write_text("x")
        with pytest.raises(errors.RetryLater, match="not in step"):
            await watcher.sync(deadline_s=0.5)
        memory.fail_next.clear()
        await watcher.sync(deadline_s=20)
        assert [c.path for c in memory.of(FileSeen)][-1] == b"new.txt"


@linux
async def test_writes_to_a_file_that_stays_open_are_seen_where_that_was_asked_for(root, tmp_path):
    path = root / "1.txt"
    async with watching(root, tmp_path / "state", backend="inotify", watch_modify=True) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        with path.open("ab") as file:
            file.write(b"line\n")
            file.flush()
            await until(lambda: memory.all_files()[b"1.txt"].size == path.stat().st_size > 5)


@linux
def test_fanotify_without_its_privileges_is_refused_with_what_to_do(monkeypatch):
    from msearchd.watch.sources import choice, fanotify_abi

    def refuses():
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fanotify_abi, "init", refuses)
    with pytest.raises(errors.Misconfigured) as caught:
        choice.resolve_backend("fanotify")
    assert "CAP_SYS_ADMIN" in str(caught.value)
    assert "AmbientCapabilities" in (caught.value.hint or "")


def test_a_backend_that_this_system_has_not_is_refused_with_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(errors.Misconfigured) as caught:
        watcher_module.Watcher(WatchSettings(backend="inotify"), MemoryTree(), MemoryTree(), state_dir=tmp_path)
    assert caught.value.key == "watch.backend"
    assert "auto" in caught.value.hint
