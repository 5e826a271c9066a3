"""Disks that come and go, in a root and in its place; scans that were cut off; machines that sleep."""

import asyncio
import ctypes
import os
import shutil
import sys
import time

import pytest
from watch_world import ONE, MemoryTree, differences, may_fanotify, on_disk, state_of, until, watching

from msearchd.domain.asset import RootState
from msearchd.watch import disk_keeper
from msearchd.watch import units as units_module
from msearchd.watch import watcher as watcher_module
from msearchd.watch.changes import FileGone, FileSeen, TreeGone
from msearchd.watch.clocks import Clocks
from msearchd.watch.scan import ScanJob

linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts")


@pytest.fixture(autouse=True)
def quick_tending(monkeypatch):
    monkeypatch.setattr(watcher_module, "_TEND_EVERY_S", 0.1)


class Disks:
    """tmpfs file systems, each kept alive at a place of its own, shown elsewhere by bind mounts."""

    def __init__(self, folder):
        self.folder, self.libc, self.made = folder, ctypes.CDLL(None, use_errno=True), []

    def make(self, name, files):
        place = self.folder / name
        place.mkdir()
        if self.libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=4m"):
            pytest.skip("mounting is not allowed here")
        self.made.append(place)
        for path, text in files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text)
        return place

    def plug(self, disk, at):
        assert self.libc.mount(os.fsencode(disk), os.fsencode(at), None, 0x1000, None) == 0
        self.made.append(at)

    def unplug(self, at):
        assert self.libc.umount2(os.fsencode(at), 0) == 0, os.strerror(ctypes.get_errno())
        self.made.remove(at)

    def close(self):
        for place in reversed(self.made):
            self.libc.umount2(os.fsencode(place), 2)


@pytest.fixture
def disks(tmp_path):
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root to mount")
    found = Disks(tmp_path)
    yield found
    found.close()


def files(count, text="x"):
    return {f"d{n % 3}/{n}.txt": text * (n + 1) for n in range(count)}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    (folder / "own").mkdir(parents=True)
    for n in range(10):
        (folder / "own" / f"{n}.txt").write_text("own")
    (folder / "usb").mkdir()
    return folder


# -- in a root ---------------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("backend", ["inotify", *(["fanotify"] if may_fanotify() else [])])
@pytest.mark.parametrize("is_point_removed", [False, True])
async def test_a_disk_unplugged_inside_a_root_is_an_offline_subtree_and_no_deletion(
    root, tmp_path, disks, is_point_removed, backend
):
    usb = disks.make("disk", files(30))
    disks.plug(usb, root / "usb")
    async with watching(root, tmp_path / "state", backend=backend) as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 40
        disks.unplug(root / "usb")
        if is_point_removed:  # as desktops do
            (root / "usb").rmdir()
        (root / "own" / "0.txt").unlink()  # a real deletion beside it is believed
        await until(lambda: "away" in watcher.snapshot().advice)
        await watcher.sync(deadline_s=20)
        await watcher.scan_now(ONE)
        assert state_of(watcher) is RootState.ONLINE
        assert watcher.snapshot().health == "degraded"
        assert len(memory.all_files()) == 39
        assert [c.path for c in memory.of(FileGone)] == [b"own/0.txt"]
        (usb / "new.txt").write_text("written elsewhere")
        (root / "usb").mkdir(exist_ok=True)
        memory.log.clear()
        disks.plug(usb, root / "usb")
        await until(lambda: b"usb/new.txt" in memory.all_files())
        await watcher.sync(deadline_s=20)
        assert [c.path for c in memory.of(FileSeen)] == [b"usb/new.txt"], "what was known is not read again"
        assert differences(memory, root) == []
        assert watcher.snapshot().health == "ok"
        (root / "usb" / "live.txt").write_text("x")  # and it is watched again
        await until(lambda: b"usb/live.txt" in memory.all_files())


@pytest.mark.root
async def test_a_disk_that_comes_back_while_it_is_looked_whether_it_went_is_seen(root, tmp_path, disks, monkeypatch):
    """Found by the property machine: unplugged and plugged in again at once, all below it was deaf until the next scan."""
    usb, real = disks.make("disk", files(30)), disk_keeper._look
    disks.plug(usb, root / "usb")
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)

        def looks_too_early(watched):
            found = real(watched)
            if not (root / "usb" / "0.txt").exists() and not (root / "usb").is_mount():
                disks.plug(usb, root / "usb")
                time.sleep(0.2)  # the loop hears of it
            return found

        monkeypatch.setattr(disk_keeper, "_look", looks_too_early)
        disks.unplug(root / "usb")
        await until((root / "usb").is_mount)
        (root / "usb" / "new.txt").write_text("x")
        await until(lambda: differences(memory, root) == [])
        assert watcher.snapshot().health == "ok"


@pytest.mark.root
async def test_a_disk_missing_inside_a_root_at_the_start_costs_nothing(root, tmp_path, disks):
    usb, memory = disks.make("disk", files(8)), MemoryTree()
    disks.plug(usb, root / "usb")
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    disks.unplug(root / "usb")
    (root / "usb" / "left on the bare folder").write_text("x")
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 18
        assert not memory.of(TreeGone)
        assert not memory.of(FileGone)
        await watcher.scan_now(ONE, accept_losses=True)  # a person: it will never come back
        await watcher.sync(deadline_s=20)
        assert differences(memory, root) == []
        assert watcher.snapshot().health == "ok"


@pytest.mark.root
async def test_another_disk_at_the_place_of_a_known_one_inside_a_root_is_not_taken_for_it(root, tmp_path, disks):
    usb, other = disks.make("disk", files(8)), disks.make("other", {"stranger.txt": "x"})
    disks.plug(usb, root / "usb")
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        disks.unplug(root / "usb")
        await until(lambda: "away" in watcher.snapshot().advice)
        disks.plug(other, root / "usb")
        await until(lambda: "another disk" in watcher.snapshot().advice)
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 18
        disks.unplug(root / "usb")
        disks.plug(usb, root / "usb")
        await until(lambda: watcher.snapshot().health == "ok")
        assert differences(memory, root) == []


@pytest.mark.root
async def test_a_root_mounted_inside_itself_ends(root, tmp_path, disks):
    disks.plug(root, root / "usb")
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 20
        assert differences(memory, root) == []


@linux
async def test_links_that_go_round_in_circles_are_not_followed(root, tmp_path):
    (root / "own" / "up").symlink_to(root)
    (root / "own" / "self").symlink_to("self")
    async with watching(root, tmp_path / "state") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        assert len(memory.all_files()) == 10


# -- in place of a root ------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("is_running", [True, False])
async def test_another_disk_in_place_of_a_root_is_not_the_root(tmp_path, disks, is_running):
    right, wrong = disks.make("right", files(30)), disks.make("wrong", files(40, "other"))
    (tmp_path / "at").mkdir()
    memory, settings = MemoryTree(), {"vanish_brake_percent": 100}  # the brake would not hold: names are the same
    disks.plug(right, tmp_path / "at")
    async with watching(tmp_path / "at", tmp_path / "state", memory=memory, **settings) as (watcher, _):
        await watcher.sync(deadline_s=20)
        if is_running:
            disks.unplug(tmp_path / "at")
            disks.plug(wrong, tmp_path / "at")
            await until(lambda: state_of(watcher) is RootState.OFFLINE)
    if not is_running:
        disks.unplug(tmp_path / "at")
        disks.plug(wrong, tmp_path / "at")
    known = memory.all_files()
    async with watching(tmp_path / "at", tmp_path / "state", memory=memory, **settings) as (watcher, _):
        await until(lambda: "another disk" in watcher.snapshot().roots[0].reason)
        assert memory.all_files() == known
        disks.unplug(tmp_path / "at")
        disks.plug(right, tmp_path / "at")
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        assert memory.all_files() == known
        disks.unplug(tmp_path / "at")
        disks.plug(wrong, tmp_path / "at")
        await until(lambda: "another disk" in watcher.snapshot().roots[0].reason)
        await watcher.scan_now(ONE, accept_losses=True)  # a person: it is meant
        await until(lambda: state_of(watcher) is RootState.ONLINE)
        assert differences(memory, tmp_path / "at") == []


@pytest.mark.root
async def test_a_copy_of_the_files_on_a_new_disk_is_the_root(tmp_path, disks):
    old, memory = disks.make("old", files(30)), MemoryTree()
    (tmp_path / "at").mkdir()
    disks.plug(old, tmp_path / "at")
    async with watching(tmp_path / "at", tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
    fresh = disks.make("fresh", {})
    shutil.copytree(old, fresh, dirs_exist_ok=True)
    disks.unplug(tmp_path / "at")
    disks.plug(fresh, tmp_path / "at")
    async with watching(tmp_path / "at", tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert state_of(watcher) is RootState.ONLINE
        assert differences(memory, tmp_path / "at") == []


# -- scans that were cut off -------------------------------------------------------------------------------------------


async def test_a_first_scan_that_was_cut_off_goes_on_where_it_stood(tmp_path, monkeypatch):
    root, memory = tmp_path / "root", MemoryTree()
    for n in range(300):
        (root / f"d{n:03}").mkdir(parents=True)
        (root / f"d{n:03}" / "f.txt").write_text("x")
    monkeypatch.setattr(units_module, "_CURSOR_EVERY_S", 0.0)
    real, stored = memory.apply, [0]

    async def slow(changes):
        await real(changes)
        stored.append(len(memory.all_files()))
        await asyncio.sleep(0.05)

    memory.apply = slow
    async with watching(root, tmp_path / "state", memory=memory) as (_, _):
        await until(lambda: len(memory.all_files()) > 100)
    done = set(memory.all_files())
    assert len(done) < 300
    memory.apply, began = real, []
    real_init = ScanJob.__init__

    def noted(self, context, **kwargs):
        real_init(self, context, **kwargs)
        began.append((self.kind, len(self.folders)))

    monkeypatch.setattr(ScanJob, "__init__", noted)
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        kinds = [kind for kind, _ in began]
        assert kinds.index("repair") < kinds.index("start")
        assert stored[-2] > 0, "the scan was cut off in its first slice"
        assert 0 < dict(began)["repair"] <= 301 - stored[-2], "more than the last slice is walked again"
        assert memory.all_files().keys() == on_disk(root).keys()
    began.clear()
    async with watching(root, tmp_path / "state", memory=memory) as (watcher, _):
        await watcher.sync(deadline_s=20)
        assert "repair" not in dict(began), "a scan that ended leaves no cursor"


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "said"), [(Clocks(5000, 0, 5000), "the machine slept"), (Clocks(9e9, 0, 0), "the clock was set")]
)
async def test_after_a_sleep_or_a_set_clock_everything_is_compared_once_more_and_the_status_says_so(
    root, tmp_path, later, said
):
    async with watching(root, tmp_path / "state", backend="inotify") as (watcher, memory):
        await watcher.sync(deadline_s=20)
        path = root / "own" / "1.txt"
        with path.open("r+b") as file:
            await asyncio.sleep(0.1)
            os.pwrite(file.fileno(), b"OWN", 0)  # no event tells while it is open
            assert differences(memory, root) != []
            watcher._keeper._read_clocks = lambda: later
            await until(lambda: said in watcher.snapshot().last_doubt)
            await until(lambda: differences(memory, root) == [])
            assert watcher.snapshot().last_doubt_ms > 0
