"""Lanes of threads and the watch over the loop, in real time."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from msearchd import errors
from msearchd.aio.lanes import Lane
from msearchd.aio.loopwatch import LoopWatch, next_interval_s, percentiles


async def test_work_runs_on_threads_of_its_lane_and_its_errors_come_back():
    lane = Lane("decode", threads=1)
    name = await lane.run(lambda: threading.current_thread().name)
    assert name.startswith("lane-decode")
    with pytest.raises(ZeroDivisionError):
        await lane.run(lambda: 1 / 0)
    assert await lane.close(deadline_s=5)


async def test_a_lane_never_runs_more_at_once_than_it_has_threads():
    lane = Lane("x", threads=2)
    lock, now, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    await asyncio.gather(*(lane.run(work) for _ in range(20)))
    assert most == 2
    await lane.close(deadline_s=5)


async def test_a_full_lane_refuses_and_takes_work_again_when_there_is_room():
    lane, go_on = Lane("x", threads=1, max_waiting=1), threading.Event()
    tasks = [asyncio.create_task(lane.run(go_on.wait, 5)) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert (lane.snapshot().busy, lane.snapshot().waiting) == (1, 1)
    with pytest.raises(errors.RetryLater, match="lane x"):
        await lane.run(time.sleep, 0)
    go_on.set()
    await asyncio.gather(*tasks)
    await lane.run(time.sleep, 0)
    await lane.close(deadline_s=5)


async def test_cancelled_work_that_waits_is_dropped_and_what_runs_keeps_its_place():
    lane, go_on, ran = Lane("x", threads=1, max_waiting=1), threading.Event(), []
    running = asyncio.create_task(lane.run(go_on.wait, 5))
    waiting = asyncio.create_task(lane.run(ran.append, 1))
    await asyncio.sleep(0.05)
    waiting.cancel()
    running.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert lane.snapshot().busy == 1  # its thread is still at it
    go_on.set()
    await lane.run(time.sleep, 0)
    assert ran == []
    await lane.close(deadline_s=5)


async def test_close_drops_what_waits_and_says_if_something_does_not_end():
    lane, go_on = Lane("x", threads=1), threading.Event()
    running = asyncio.create_task(lane.run(go_on.wait, 5))
    await asyncio.sleep(0.05)
    assert not await lane.close(deadline_s=0.05)
    with pytest.raises(errors.RetryLater, match="closed"):
        await lane.run(time.sleep, 0)
    go_on.set()
    await running
    assert await lane.close(deadline_s=5)


async def test_a_blocked_loop_is_seen():
    watch = LoopWatch()
    watch.start()
    await asyncio.sleep(0.05)
    time.sleep(0.3)
    await asyncio.sleep(0.05)
    watch.stop()
    lag = watch.snapshot()
    assert lag.max_ms > 100
    assert lag.samples >= 1


def test_an_idle_process_is_sampled_twice_a_minute_a_busy_one_ten_times_a_second():
    interval_s = 0.1
    for _ in range(20):
        interval_s = next_interval_s(interval_s, cpu_share=0.0)
    assert interval_s == 30
    assert next_interval_s(interval_s, cpu_share=0.5) == 0.1


def test_percentiles_are_those_of_the_samples():
    lag = percentiles([n / 1000 for n in range(101)])
    assert (lag.p50_ms, lag.p99_ms, lag.max_ms, lag.samples) == (50, 99, 100, 101)
    assert percentiles([]).samples == 0
