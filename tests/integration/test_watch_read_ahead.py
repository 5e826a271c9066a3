"""Reading ahead on a cold disk changes how long a scan takes, and nothing else."""

import itertools
import os
import threading

from watch_world import ONE, differences, watching

from msearchd.watch import scan
from msearchd.watch.read_ahead import ReadAhead, blocks_read


def ahead_threads():
    return [thread for thread in threading.enumerate() if thread.name == "watch-ahead"]


def test_no_thread_and_no_descriptor_outlives_the_slice(tmp_path):
    for n in range(50):
        folder = tmp_path / f"d{n}"
        folder.mkdir()
        for m in range(20):
            (folder / f"{m}").touch()
    (tmp_path / "link").symlink_to("/")
    before = set(os.listdir("/proc/self/fd"))
    folders = [b"gone", b"link", b"d0/3", *(b"d%d" % n for n in range(50))]
    for _ in range(20):
        with ReadAhead(os.fsencode(tmp_path), folders):
            assert len(ahead_threads()) <= 3
        assert not ahead_threads()
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_started_where_nothing_is_to_be_read():
    with ReadAhead(b"/nowhere", []):
        assert not ahead_threads()


def test_a_thread_that_read_nothing_waited_for_no_disk():
    assert blocks_read() >= 0


async def test_a_scan_that_reads_ahead_finds_what_any_scan_finds(tmp_path, monkeypatch):
    root = tmp_path / "root"
    for n in range(60):
        folder = root / f"d{n % 6}" / f"e{n}"
        folder.mkdir(parents=True)
        for m in range(5):
            (folder / f"{m}.txt").write_text("x")
    waits = itertools.count(step=1000)
    started = []
    real = scan.ReadAhead

    def counted(base, folders):
        started.append(len(folders))
        return real(base, folders)

    monkeypatch.setattr(scan, "blocks_read", lambda: next(waits))  # a disk that is always waited for
    monkeypatch.setattr(scan, "ReadAhead", counted)
    async with watching(root, tmp_path / "state", backend="polling") as (watcher, memory):
        await watcher.sync(deadline_s=30)
        assert not differences(memory, root)
        for n in range(0, 60, 7):
            (root / f"d{n % 6}" / f"e{n}" / "new.txt").write_text("y")
            (root / f"d{n % 6}" / f"e{n}" / "0.txt").unlink()
        await watcher.scan_now(ONE)
        await watcher.sync(deadline_s=30)
        assert not differences(memory, root)
    assert any(started)
    assert not ahead_threads()
