"""What breaks watchers: lost events, dead readers, full limits, roots that go and come back, a sink that refuses."""

import asyncio
import ctypes
import errno
import os
import shutil
import signal
import sys
import threading

import pytest
from watch_world import ONE, MemoryTree, differences, state_of, until, watching

from msearchd import errors
from msearchd.domain.asset import Root, RootId, RootState
from msearchd.settings import WatchSettings
from msearchd.watch import watcher as watcher_module
from msearchd.watch.changes import FileGone, FileSeen, RootWent, TreeGone
from msearchd.watch.disk import RootContext, RootUnreadable
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import Rules
from msearchd.watch.lane import DiskLane
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


# -- roots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["inotify", "watchdog", "polling"])
async def test_a_root_that_goes_is_offline_and_comes_back_by_itself(root, tmp_path, backend):
    async with watching(root, tmp_path / "state", backend=backend) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        memory.log.clear()
        root.rename(tmp_path / "unplugged")
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert len(memory.all_files()) == 30
        assert not memory.of(FileGone)
        (tmp_path / "unplugged" / "added elsewhere.txt").write_text("x")
        (tmp_path / "unplugged" / "0.txt").unlink()
        (tmp_path / "unplugged").rename(root)
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert [c.state for c in memory.of(RootWent)] == [RootState.OFFLINE, RootState.ONLINE]
        (root / "live again.txt").write_text("x")
        if backend != "polling":
            await until(lambda: b"live again.txt" in memory.all_files())


async def test_an_empty_mount_point_in_its_place_deletes_nothing(root, tmp_path):
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        root.rename(tmp_path / "unplugged")
        root.mkdir()
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        await asyncio.sleep(0.5)
        assert "mounted" in watcher.snapshot().roots[0].reason
        assert len(memory.all_files()) == 30
        root.rmdir()
        (tmp_path / "unplugged").rename(root)
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        assert differences(memory, root) == []


async def test_a_root_that_is_missing_at_the_start_is_offline_until_it_comes(tmp_path):
    root = tmp_path / "later"
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        await watcher.sync(deadline_s=5)  # an offline root holds nobody up
        root.mkdir()
        (root / "a.txt").write_text("x")
        await until(lambda: b"a.txt" in memory.all_files())
        assert state_of(watcher) is RootState.ONLINE


async def test_losing_most_files_at_once_while_down_is_doubted_until_a_person_says_so(root, tmp_path):
    memory = MemoryTree()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    for n in range(25):
        (root / f"{n}.txt").unlink()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert "25 of 30 files vanished" in watcher.snapshot().roots[0].reason
        assert len(memory.all_files()) == 30
        summary = await watcher.scan_now(ONE, accept_losses=True)
        assert (summary.vanished, summary.doubt) == (25, "")
        assert state_of(watcher) is RootState.ONLINE
        assert differences(memory, root) == []


async def test_a_root_emptied_while_down_is_doubted_even_if_it_was_small(tmp_path):
    root, memory = tmp_path / "r", MemoryTree()
    root.mkdir()
    (root / "only.txt").write_text("x")
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    (root / "only.txt").unlink()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await until(lambda: state_of(watcher) is RootState.OFFLINE)
        assert len(memory.all_files()) == 1
        (root / "only.txt").write_text("back")
        await watcher.scan_now(ONE)
        assert state_of(watcher) is RootState.ONLINE


@pytest.mark.parametrize("backend", ["inotify", "watchdog"])
async def test_deleting_everything_under_the_eyes_of_the_watcher_is_believed(root, tmp_path, backend):
    async with watching(root, tmp_path / "state", backend=backend) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        for path in root.iterdir():
            path.unlink()
        await watcher.sync(deadline_s=20)
        assert memory.all_files() == {}
        assert state_of(watcher) is RootState.ONLINE


@linux
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
async def test_a_disk_unmounted_and_mounted_again_costs_no_deletion(tmp_path):
    libc = ctypes.CDLL(None, use_errno=True)
    root = tmp_path / "disk"
    root.mkdir()
    target = os.fsencode(root)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=1m"):
        pytest.skip("mounting is not allowed here")
    try:
        for n in range(5):
            (root / f"{n}.txt").write_text("x")
        if libc.mount(target, os.fsencode(hidden), None, 0x1000, None):  # MS_BIND: keeps the file system alive
            pytest.skip("bind mounts are not allowed here")
        async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
            await watcher.sync(deadline_s=20)
            assert libc.umount2(target, 0) == 0  # nothing of ours keeps it busy
            await until(lambda: state_of(watcher) is RootState.OFFLINE)
            assert len(memory.all_files()) == 5
            (hidden / "5.txt").write_text("x")
            assert libc.mount(os.fsencode(hidden), target, None, 0x1000, None) == 0
            await until(lambda: state_of(watcher) is RootState.ONLINE)
            await watcher.sync(deadline_s=20)  # the new file is at rest only now
            assert differences(memory, root) == []
    finally:
        libc.umount2(target, 2)
        libc.umount2(os.fsencode(hidden), 2)


@linux
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
async def test_a_bind_mount_of_a_folder_into_the_root_is_followed_at_both_places(root, tmp_path, monkeypatch):
    from msearchd.watch.sources import sweep

    monkeypatch.setattr(sweep, "_EVERY_S", 0.2)  # one inode, one watch: the other place is swept
    libc = ctypes.CDLL(None, use_errno=True)
    (root / "real").mkdir()
    (root / "alias").mkdir()
    (root / "real" / "f.txt").write_text("x")
    alias = os.fsencode(root / "alias")
    if libc.mount(os.fsencode(root / "real"), alias, None, 0x1000, None):
        pytest.skip("bind mounts are not allowed here")
    try:
        async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
            await watcher.sync(deadline_s=20)
            assert {b"real/f.txt", b"alias/f.txt"} <= memory.all_files().keys()
            await watcher.scan_now(ONE)
            assert not memory.of(TreeGone)
            (root / "real" / "g.txt").write_text("x")
            await until(lambda: b"real/g.txt" in memory.all_files())
            assert {b"real/f.txt", b"alias/f.txt"} <= memory.all_files().keys()
    finally:
        libc.umount2(alias, 2)


async def test_a_root_removed_in_the_middle_of_its_scan_is_never_spoken_of_again(root, tmp_path):
    for n in range(100):
        (root / f"d{n}").mkdir()
        (root / f"d{n}" / "f.txt").touch()
    async with watching(root, tmp_path / "state") as (watcher, memory):
        real = memory.apply

        async def slow(changes):
            await asyncio.sleep(0.01)
            await real(changes)

        memory.apply = slow
        await until(lambda: len(memory.log) > 0)
        await watcher.remove_root(ONE)
        said = len(memory.log)
        await asyncio.sleep(0.3)
        assert len(memory.log) == said


async def test_a_disk_that_does_not_answer_takes_its_root_offline_and_no_other(tmp_path):
    lane = DiskLane(deadline_s=0.1)
    release = threading.Event()

    def context(number):
        root = Root(RootId(number), b"/r%d" % number)
        return RootContext(root, Rules(root.path, WatchSettings()), NoCoverage(), 1)

    with pytest.raises(RootUnreadable, match="does not answer"):
        await lane.run(context(1), release.wait)
    assert lane.is_stuck(ONE)
    assert await lane.run(context(2), lambda: "fine") == "fine"
    with pytest.raises(RootUnreadable):
        await lane.run(context(1), lambda: "not asked")
    release.set()
    await until(lambda: not lane.is_stuck(ONE))
    lane.close()


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
