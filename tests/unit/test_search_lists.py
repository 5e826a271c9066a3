"""How long each list is waited for. Virtual time."""

import asyncio

import pytest

from msearchd import errors
from msearchd.search.fusion import Entry
from msearchd.search.lists import PATIENCE_S, Answer, Ask, ListReport, gathered

pytestmark = pytest.mark.looptime


def answering(name, *, after_s=0.0, hits=1, loading_s=None):
    async def ask():
        await asyncio.sleep(after_s)
        return Answer(ListReport(name, hits, 0.0), tuple(Entry(n, None, 1.0) for n in range(hits)))

    return Ask(name, ask, loading_s)


async def test_warm_lists_are_all_waited_for(looptime):
    found = await gathered([answering("words"), answering("meaning", after_s=3)], limit_s=10)
    assert [one.report.name for one in found if one.entries] == ["words", "meaning"]
    assert looptime == 3


async def test_a_list_whose_model_loads_does_not_hold_up_hits_by_words(looptime):
    found = await gathered([answering("words"), answering("meaning", after_s=6, loading_s=6.0)], limit_s=10)
    assert [bool(one.entries) for one in found] == [True, False]
    assert found[1].report.loading_s is not None
    assert "still loads" in found[1].report.sentence
    assert looptime == PATIENCE_S


async def test_a_model_that_loads_within_a_second_misses_nothing(looptime):
    found = await gathered([answering("words"), answering("meaning", after_s=0.5, loading_s=0.5)], limit_s=10)
    assert [one.report.error for one in found] == ["", ""]
    assert looptime == 0.5


async def test_where_words_find_nothing_the_model_is_waited_for(looptime):
    found = await gathered([answering("words", hits=0), answering("meaning", after_s=6, loading_s=6.0)], limit_s=10)
    assert found[1].entries
    assert looptime == 6


async def test_but_not_longer_than_the_limit(looptime):
    found = await gathered([answering("words", hits=0), answering("meaning", after_s=60, loading_s=0.0)], limit_s=10)
    assert "still loads" in found[1].report.error
    assert looptime == 10


@pytest.mark.parametrize(("wait_s", "is_there", "took_s"), [(30.0, True, 12), (5.0, False, 5), (0.0, False, 0)])
async def test_a_caller_may_say_how_long_it_waits(looptime, wait_s, is_there, took_s):
    asks = [answering("words"), answering("meaning", after_s=12, loading_s=12.0)]
    found = await gathered(asks, limit_s=10, wait_s=wait_s)
    assert bool(found[1].entries) is is_there
    assert looptime == took_s


async def test_a_late_warm_list_is_named_as_late(looptime):
    found = await gathered([answering("words"), answering("meaning", after_s=11)], limit_s=10)
    assert found[1].report.sentence == "the list of meaning is missing: no answer within 10 s"


async def test_an_error_of_a_list_that_loads_is_told_as_it_is(looptime):
    async def broken():
        raise errors.Misconfigured("no weights", key="model:x", hint="type: this")

    found = await gathered([answering("words"), Ask("meaning", broken, 0.0)], limit_s=10)
    assert found[1].report.error == "no weights (type: this)"
    assert found[1].report.loading_s is None


async def test_a_bug_ends_all_lists(looptime):
    ended = []

    async def slow():
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    async def broken():
        await asyncio.sleep(0.1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await gathered([Ask("words", broken), Ask("meaning", slow, 1.0), Ask("names", slow)], limit_s=200)
    assert ended == [True, True]
