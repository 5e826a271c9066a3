"""How long a change rests, against real events: counted from when it happened, not from when we got round to it."""

import sys
import time

import pytest
from watch_world import until, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify")


async def test_a_loop_that_hears_late_of_a_save_waits_that_much_less(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    async with watching(root, tmp_path / "state", backend="inotify", settle_closed_s=2.0) as (watcher, _):
        await watcher.sync(deadline_s=20)
        began = time.monotonic()
        (root / "a.txt").write_text("x")
        time.sleep(0.9)  # the loop is held, say by a long computation
        await until(lambda: len(watcher._settler))
        rest_s = watcher._settler.next_due() - began
    assert 1.98 <= rest_s < 2.6, "2.9 if it were counted from when we heard of it"


async def test_half_of_a_rest_is_waited_out_however_late_we_are(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    async with watching(root, tmp_path / "state", backend="inotify", settle_closed_s=0.4) as (watcher, _):
        await watcher.sync(deadline_s=20)
        (root / "a.txt").write_text("x")
        time.sleep(1.0)
        heard = time.monotonic()
        await until(lambda: len(watcher._settler))
        assert watcher._settler.next_due() >= heard + 0.19
