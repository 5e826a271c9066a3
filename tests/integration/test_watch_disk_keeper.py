"""The mount table's changes reach the watcher at once after quiet, and rarely while they keep coming."""

import asyncio
import os

import pytest

from msearchd.watch import mounts
from msearchd.watch.disk_keeper import DiskKeeper
from msearchd.watch.lane import DiskLane


class Table:
    """Changes when told so, as the kernel's table does: readable until it was taken, or looked at once."""

    def __init__(self):
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)

    def change(self):
        os.write(self._write, b"x")

    def fileno(self):
        return self._read

    def take(self):
        os.read(self._read, 1 << 16)

    def close(self):
        os.close(self._read)
        os.close(self._write)


@pytest.fixture
async def table(monkeypatch):
    monkeypatch.setattr(mounts, "_FIRST_REST_S", 0.1)
    monkeypatch.setattr(mounts, "_LONGEST_REST_S", 0.4)
    table = Table()
    monkeypatch.setattr(mounts.MountChanges, "open", lambda: table)
    return table


async def test_a_thousand_mounts_wake_the_watcher_a_few_times_and_the_last_is_heard(table, tmp_path):
    heard = []
    keeper = DiskKeeper(None, DiskLane(), tmp_path / "roots.json", changed=lambda: heard.append(made))
    await keeper.start()
    made = 0
    while made < 1000:
        made += 1
        table.change()
        await asyncio.sleep(0.001)
    async with asyncio.timeout(5):
        while heard[-1] != 1000:
            await asyncio.sleep(0.01)
    await keeper.close()
    assert heard[0] == 1
    assert len(heard) <= 12


async def test_a_keeper_that_ends_in_a_rest_hears_nothing_more(table, tmp_path):
    heard = []
    keeper = DiskKeeper(None, DiskLane(), tmp_path / "roots.json", changed=lambda: heard.append(1))
    await keeper.start()
    table.change()
    while not heard:
        await asyncio.sleep(0.01)
    await keeper.close()
    await asyncio.sleep(0.3)
    assert heard == [1]
