"""Small requests of many callers share calls: nobody waits alone, and one caller's bad text is nobody else's."""

import asyncio

import pytest
from gateway_world import WordsPool, vector
from hypothesis import given
from hypothesis import strategies as st

from msearchd import errors
from msearchd.domain.space import ModelKey
from msearchd.gateway.gather import Gatherer
from msearchd.inference.pool import Lane, Role

MODEL = ModelKey("words")


class SlowPool(WordsPool):
    """A second a call."""

    async def embed(self, samples, **options):
        await asyncio.sleep(1)
        return await super().embed(samples, **options)


def asked(gatherer, texts, *, role=Role.DOCUMENT, deadline_s=30):
    return gatherer.embed(texts, model=MODEL, role=role, lane=Lane.INTERACTIVE, deadline_s=deadline_s)


def rows(vectors):
    return [vectors.row(index) for index in range(vectors.count)]


pytestmark = pytest.mark.looptime


async def test_a_lone_request_goes_at_once(looptime):
    pool = SlowPool()
    found = await asked(Gatherer(pool), ["a", "b"])
    assert rows(found) == [vector("a"), vector("b")]
    assert looptime == 1


async def test_what_arrives_meanwhile_travels_together(looptime):
    pool = SlowPool()
    gatherer = Gatherer(pool)
    found = await asyncio.gather(*(asked(gatherer, [f"text {n}"]) for n in range(20)))
    assert [rows(one) for one in found] == [[vector(f"text {n}")] for n in range(20)]
    assert [len(call[3]) for call in pool.calls] == [16, 4]
    assert looptime == 2


async def test_each_caller_is_told_its_own_costs():
    gatherer = Gatherer(SlowPool())
    texts = ["one", "one two", "one two three"]
    found = await asyncio.gather(*(asked(gatherer, [text, "more words"]) for text in texts))
    assert [one.costs for one in found] == [(1, 2), (2, 2), (3, 2)]


async def test_questions_and_documents_travel_apart():
    pool = WordsPool()
    gatherer = Gatherer(pool)
    await asyncio.gather(*(asked(gatherer, ["x"], role=role) for role in (Role.QUERY, Role.DOCUMENT) * 4))
    assert all(role in {Role.QUERY, Role.DOCUMENT} for _, role, _, _ in pool.calls)
    assert sum(len(texts) for *_, texts in pool.calls) == 8


async def test_a_bad_text_fails_its_own_request_alone():
    gatherer = Gatherer(SlowPool())
    texts = ["first", "good", "@bad", "fine"]
    found = await asyncio.gather(*(asked(gatherer, [text]) for text in texts), return_exceptions=True)
    assert isinstance(found[2], errors.BadAsset)
    assert "passage 0 of 1" in str(found[2])
    assert [rows(found[place]) for place in (0, 1, 3)] == [[vector(texts[place])] for place in (0, 1, 3)]


async def test_a_missing_model_is_told_to_everybody():
    pool = SlowPool()
    pool.raises = errors.Misconfigured("no weights", key="model:words")
    gatherer = Gatherer(pool)
    found = await asyncio.gather(*(asked(gatherer, ["x"]) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(one, errors.Misconfigured) for one in found)
    assert len(pool.calls) == 1


async def test_a_caller_who_leaves_is_not_embedded_for():
    pool = SlowPool()
    gatherer = Gatherer(pool)
    first = asyncio.create_task(asked(gatherer, ["first"]))
    await asyncio.sleep(0.1)
    gone, stays = (asyncio.create_task(asked(gatherer, [text])) for text in ("gone", "stays"))
    await asyncio.sleep(0.1)
    gone.cancel()
    assert rows(await stays) == [vector("stays")]
    assert rows(await first) == [vector("first")]
    assert ["stays"] in [call[3] for call in pool.calls]


async def test_the_last_caller_who_leaves_ends_the_call_at_work():
    cancelled = []

    class HeldPool(WordsPool):
        async def embed(self, samples, **_options):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancelled.append(samples)
                raise

    gatherer = Gatherer(HeldPool())
    alone = asyncio.create_task(asked(gatherer, ["x"]))
    await asyncio.sleep(0.1)
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert cancelled == [["x"]]


async def test_who_comes_when_the_last_one_left_is_served():
    gatherer = Gatherer(SlowPool())
    alone = asyncio.create_task(asked(gatherer, ["x"]))
    await asyncio.sleep(0.1)
    alone.cancel()
    await asyncio.sleep(0)
    assert rows(await asked(gatherer, ["y"])) == [vector("y")]
    assert gatherer._lines == {}


async def test_a_bug_is_told_to_those_who_met_it():
    pool = SlowPool()
    pool.raises = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        await asked(Gatherer(pool), ["x"])


async def test_a_caller_waits_no_longer_than_it_said(looptime):
    class HeldPool(WordsPool):
        async def embed(self, samples, **_options):
            await asyncio.sleep(100)

    gatherer = Gatherer(HeldPool())
    with pytest.raises(errors.RetryLater, match="within 5 s"):
        await asked(gatherer, ["x"], deadline_s=5)
    assert looptime == 5


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "@bad"]), min_size=1, max_size=4), min_size=1, max_size=12))
async def test_every_caller_always_gets_its_own_rows_in_its_order(requests):
    gatherer = Gatherer(WordsPool())
    found = await asyncio.gather(*(asked(gatherer, texts) for texts in requests), return_exceptions=True)
    for texts, one in zip(requests, found, strict=True):
        if "@bad" in texts:
            assert isinstance(one, errors.BadAsset)
        else:
            assert rows(one) == [vector(text) for text in texts]
