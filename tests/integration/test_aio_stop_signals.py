"""One request to stop is one, however many signals make it; a later one means now."""

import asyncio
import os
import signal

import pytest

from msearchd.aio.stop_signals import set_on_stop_signals


@pytest.fixture
async def asked():
    """`stop`, the `clock` (a list of one number) and the statuses with which the process would have ended."""
    stop, clock, ends = asyncio.Event(), [100.0], []
    set_on_stop_signals(stop, status_at_once=7, end=ends.append, now=lambda: clock[0])
    yield stop, clock, ends
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def send(number):
    os.kill(os.getpid(), number)
    await asyncio.sleep(0.02)


async def test_a_signal_and_its_echo_through_the_group_stop_in_order(asked):
    stop, clock, ends = asked
    await send(signal.SIGTERM)
    assert stop.is_set()
    clock[0] += 0.5
    await send(signal.SIGTERM)
    assert ends == []


async def test_a_person_who_asks_again_is_obeyed_at_once(asked):
    _, clock, ends = asked
    await send(signal.SIGINT)
    clock[0] += 2
    await send(signal.SIGINT)
    assert ends == [7]
