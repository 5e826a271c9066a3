"""The event bus: ids grow, latecomers resume, those too late hear `lost`, slow ones cost nothing."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from msearchd.api.sse import encoded
from msearchd.control.events import Event, EventBus


async def take(stream, count):
    found = []
    async with asyncio.timeout(1):
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_listener_hears_what_comes_after_it_began():
    bus = EventBus(first_id=1)
    bus.publish("before")
    stream = bus.stream()
    waiting = asyncio.create_task(take(stream, 2))
    await asyncio.sleep(0)
    bus.publish("a", {"n": 1})
    bus.publish("b")
    assert [(event.id, event.event) for event in await waiting] == [(2, "a"), (3, "b")]


async def test_a_listener_resumes_after_the_last_event_it_saw():
    bus = EventBus(first_id=1)
    for name in "abc":
        bus.publish(name)
    assert [event.event for event in await take(bus.stream(1), 2)] == ["b", "c"]


async def test_who_was_away_too_long_is_told_so_and_goes_on():
    bus = EventBus(first_id=1, ring=3)
    for number in range(10):
        bus.publish("tick", {"n": number})
    found = await take(bus.stream(2), 4)
    assert (found[0].event, found[0].data) == ("lost", {"missed": 5})
    assert [event.id for event in found] == [7, 8, 9, 10]


async def test_ids_of_an_earlier_life_are_answered_with_lost():
    bus = EventBus(first_id=100)
    bus.publish("a")
    found = await take(bus.stream(5), 2)
    assert [event.event for event in found] == ["lost", "a"]
    assert (await take(bus.stream(999), 1))[0].event == "lost"


async def test_a_restart_gives_greater_ids_than_the_life_before():
    before = EventBus()
    ids = [before.publish("x") for _ in range(3)]
    await asyncio.sleep(0.01)
    assert EventBus().publish("x") > ids[-1]


async def test_closing_ends_every_stream_after_its_last_event():
    bus = EventBus(first_id=1)
    streams = [asyncio.create_task(take(bus.stream(0), 99)) for _ in range(3)]
    await asyncio.sleep(0)
    bus.publish("last")
    bus.close()
    assert [[event.event for event in found] for found in await asyncio.gather(*streams)] == [["last"]] * 3


@given(st.lists(st.integers(1, 12), max_size=12), st.integers(1, 8))
def test_no_event_is_missed_in_silence_and_none_comes_twice(bursts, ring):
    async def scenario():
        bus = EventBus(first_id=1, ring=ring)
        heard = []

        async def listen():
            async for event in bus.stream(0):
                heard.append(event)
                await asyncio.sleep(0)  # slower than the bursts

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        for burst in bursts:
            for _ in range(burst):
                bus.publish("x")
            await asyncio.sleep(0)
        bus.close()
        await listening
        return heard

    heard = asyncio.run(scenario())
    ids = [event.id for event in heard]
    assert ids == sorted(set(ids))
    missed = sum(event.data["missed"] for event in heard if event.event == "lost")
    assert missed + sum(event.event == "x" for event in heard) == sum(bursts)


def test_an_event_is_written_as_the_html_standard_says():
    raw = encoded(Event(7, "job", {"path": "/caf\udcff\n"}))
    assert raw == b'id: 7\nevent: job\ndata: {"path": "/caf\\udcff\\n"}\n\n'
