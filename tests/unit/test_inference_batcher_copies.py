"""A batch whose worker died goes to another copy of the model first: nothing is lost, nothing is answered twice."""

import asyncio
import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_fake_engine import DIM, vector
from inference_fakes import expected, rows

from msearchd import errors
from msearchd.aio.child import LinkLost, Reply
from msearchd.inference.batcher import Batcher
from msearchd.inference.worker_process import StartFailed


class Copy:
    """A copy of a model. Its worker answers batches of two texts, dies at those with "poison" in them, and by a script: an
    entry for each request says after how many batches it dies of its own (None: not), or "start": it cannot be started.
    """

    def __init__(self, name, script=(), answered=None):
        self.name = name
        self.script = collections.deque(script)
        self.answered = collections.Counter() if answered is None else answered  # texts, over all copies
        self.requests = []
        self.is_alive = True
        self.others = []
        self.batcher = Batcher(
            self._send,
            batch_cost=lambda _kind: 8,
            restart=self._start,
            forgive=self._start,
            on_killed=lambda: None,
            elsewhere=self._elsewhere,
        )

    def _elsewhere(self):
        return next((other.batcher for other in self.others if other.is_alive), None)

    async def _start(self):
        self.is_alive = True

    async def _send(self, args, _body=b""):
        texts = args["texts"]
        self.requests.append(texts)
        dies_after = self.script.popleft() if self.script else None
        if dies_after == "start":
            self.is_alive = False
            raise StartFailed("model:fake: not ready", after_s=2.0)
        self.is_alive = True
        plan = [list(range(start, min(start + 2, len(texts)))) for start in range(0, len(texts), 2)]
        yield Reply({"plan": plan, "dim": DIM}, more=True)
        for count, batch in enumerate(plan):
            await asyncio.sleep(0)
            if dies_after == count or any("poison" in texts[index] for index in batch):
                self.is_alive = False
                raise LinkLost("model:fake: killed by SIGSEGV")
            self.answered.update(texts[index] for index in batch)
            yield Reply({"rows": batch}, b"".join(vector(texts[index]) for index in batch), more=True)
        yield Reply({})


def two_copies(first=(), second=()):
    answered = collections.Counter()
    one, two = Copy("one", first, answered), Copy("two", second, answered)
    one.others, two.others = [two], [one]
    return one, two


async def test_a_batch_whose_worker_died_is_done_by_another_copy_at_once():
    one, two = two_copies(first=[1])
    texts = [f"text {number}" for number in range(6)]
    assert rows(await one.batcher.embed(texts, role="document")) == expected(texts)
    assert two.requests == [texts[2:4]]
    assert one.requests == [texts, texts[4:]]  # the innocent rest stays
    assert max(one.answered.values()) == 1


async def test_without_a_living_copy_it_is_done_again_where_it_was():
    one, two = two_copies(first=[0])
    two.is_alive = False
    assert rows(await one.batcher.embed(["a", "b"], role="document")) == expected(["a", "b"])
    assert two.requests == []


async def test_what_cannot_be_started_here_is_done_by_a_copy_that_lives_and_by_no_third_one():
    one, two = two_copies(first=["start"])
    assert rows(await one.batcher.embed(["a"], role="document")) == expected(["a"])
    assert two.requests == [["a"]]
    one, two = two_copies(first=["start"], second=["start"])
    with pytest.raises(errors.RetryLater):
        await one.batcher.embed(["a"], role="document")


async def test_the_search_for_a_culprit_kills_one_worker_more_of_the_other_copy_alone():
    one, two = two_copies()
    texts = ["fine", "poison"]
    calls = await asyncio.gather(
        *(one.batcher.embed([text], role="document") for text in texts), return_exceptions=True
    )
    assert rows(calls[0]) == expected(["fine"])
    assert isinstance(calls[1], errors.BadAsset)
    assert one.requests == [texts]
    assert two.requests[0] == texts  # together once more, then halves


script = st.lists(st.none() | st.integers(0, 3) | st.just("start"), max_size=8)
calls_of = st.lists(
    st.tuples(
        st.sampled_from([0, 1]), st.lists(st.sampled_from(["fine", "fine", "fine", "poison"]), min_size=1, max_size=7)
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(first=script, second=script, wanted=calls_of)
async def test_no_text_is_lost_and_none_is_answered_twice_however_workers_die(first, second, wanted):
    copies = two_copies(first, second)
    calls = [
        (where, [f"{word} {number}.{index}" for index, word in enumerate(words)])
        for number, (where, words) in enumerate(wanted)
    ]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(
            *(copies[where].batcher.embed(texts, role="document") for where, texts in calls), return_exceptions=True
        )
        while any(copy.batcher.is_busy for copy in copies):  # callers hear of it a turn of the loop before it ends
            await asyncio.sleep(0)
    for (_, texts), answer in zip(calls, answers, strict=True):
        if isinstance(answer, BaseException):
            # Only what is poison, a worker that died twice at one text by the script, or starts that failed everywhere.
            assert isinstance(answer, errors.BadAsset | errors.RetryLater), answer
            scripted = [*first, *second]
            assert any("poison" in text for text in texts) or scripted != [None] * len(scripted)
        else:
            assert rows(answer) == expected(texts)
            assert all(copies[0].answered[text] == 1 for text in texts)
    assert max(copies[0].answered.values(), default=1) == 1
    for copy in copies:
        assert (copy.batcher.waiting, copy.batcher.in_flight) == (0, 0)
        await copy.batcher.close()
