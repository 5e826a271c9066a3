import asyncio

import pytest
from inference_fake_engine import DIM, vector
from inference_fakes import expected, rows

from msearchd import errors
from msearchd.aio.child import LinkLost, Reply
from msearchd.inference import windows
from msearchd.inference.batcher import Batcher


class FakeWorker:
    """Answers windows in the order of their arrival, one batch of two texts at a time, when the test lets it."""

    def __init__(self):
        self.requests = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.most_at_once = self.at_once = 0
        self.restarts = 0
        self.lost = []  # one entry per request: the frames after which it is lost

    async def send(self, args, body=b""):
        number = len(self.requests)
        self.requests.append(args)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            texts = args["texts"]
            plan = [list(range(start, min(start + 2, len(texts)))) for start in range(0, len(texts), 2)]
            yield Reply({"plan": plan, "dim": DIM}, more=True)
            for count, batch in enumerate(plan):
                await self.may_answer.wait()
                if number < len(self.lost) and self.lost[number] == count:
                    raise LinkLost("model:fake: killed by SIGSEGV")
                yield Reply({"rows": batch}, b"".join(vector(texts[index]) for index in batch), more=True)
            yield Reply({})
        finally:
            self.at_once -= 1

    async def restart(self):
        self.restarts += 1

    async def forgive(self):
        pass


def batcher_of(worker, batch_tokens=64):
    return Batcher(
        worker.send,
        batch_cost=lambda _kind: batch_tokens,
        restart=worker.restart,
        forgive=worker.forgive,
        on_killed=lambda: None,
    )


async def test_a_lone_call_is_sent_at_once_and_keeps_its_order():
    worker = FakeWorker()
    texts = [f"text {number}" for number in range(7)]
    vectors = await batcher_of(worker).embed(texts, role="document")
    assert rows(vectors) == expected(texts)
    assert len(worker.requests) == 1


async def test_calls_that_are_ready_together_share_a_window():
    worker = FakeWorker()
    batcher = batcher_of(worker)
    results = await asyncio.gather(*(batcher.embed([f"call {number}"], role="document") for number in range(20)))
    assert [rows(result)[0] for result in results] == expected([f"call {number}" for number in range(20)])
    assert len(worker.requests) == 1


async def test_calls_that_arrive_during_a_window_are_gathered_and_at_most_two_windows_are_in_flight():
    worker = FakeWorker()
    worker.may_answer.clear()
    batcher = batcher_of(worker)
    calls = []
    for number in range(400):
        calls.append(asyncio.create_task(batcher.embed([f"call {number}"], role="document")))
        await asyncio.sleep(0)
    assert worker.most_at_once == windows.MAX_IN_FLIGHT
    worker.may_answer.set()
    await asyncio.gather(*calls)
    assert worker.most_at_once == windows.MAX_IN_FLIGHT
    assert len(worker.requests) < 40


async def test_questions_and_passages_never_share_a_window():
    worker = FakeWorker()
    batcher = batcher_of(worker)
    await asyncio.gather(
        batcher.embed(["a", "b"], role="document"),
        batcher.embed(["c"], role="query"),
        batcher.embed(["d"], role="document"),
    )
    assert [(request["role"], request["texts"]) for request in worker.requests] == [
        ("document", ["a", "b"]),
        ("query", ["c"]),
        ("document", ["d"]),
    ]


async def test_a_cancelled_call_that_was_not_sent_costs_nothing():
    worker = FakeWorker()
    worker.may_answer.clear()
    batcher = batcher_of(worker)
    first = asyncio.create_task(batcher.embed(["first"], role="document"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(batcher.embed(["second"], role="document"))
    await asyncio.sleep(0)
    second.cancel()
    worker.may_answer.set()
    await first
    await asyncio.sleep(0.01)
    assert [request["texts"] for request in worker.requests] == [["first"]]
    assert not batcher.is_busy


async def test_what_was_answered_before_a_crash_is_not_computed_again():
    worker = FakeWorker()
    worker.lost = [1]
    texts = [f"text {number}" for number in range(6)]
    vectors = await batcher_of(worker).embed(texts, role="document")
    assert rows(vectors) == expected(texts)
    assert worker.requests[1]["texts"] == texts[2:4]  # alone, before the innocent rest
    assert worker.requests[2]["texts"] == texts[4:]


async def test_of_two_windows_in_flight_only_the_one_at_work_is_blamed():
    worker = FakeWorker()
    worker.may_answer.clear()
    batcher = batcher_of(worker, batch_tokens=9)
    guilty = asyncio.create_task(batcher.embed(["guilty"], role="document"))
    await asyncio.sleep(0.01)
    innocent = asyncio.create_task(batcher.embed([f"innocent {number}" for number in range(8)], role="document"))
    await asyncio.sleep(0.01)
    assert len(worker.requests) == 2
    worker.lost = [0, 0, 0]  # both die with the first process; then the guilty one alone kills another
    worker.may_answer.set()
    with pytest.raises(errors.BadAsset, match="passage 0 of 1"):
        await guilty
    assert rows(await innocent) == expected([f"innocent {number}" for number in range(8)])


async def test_an_error_of_the_worker_reaches_every_caller_of_the_window():
    async def refuse(_args, _body):
        raise errors.Misconfigured("no weights", key="model:x", hint="type this")
        yield

    batcher = Batcher(
        refuse,
        batch_cost=lambda _kind: 64,
        restart=FakeWorker().restart,
        forgive=FakeWorker().forgive,
        on_killed=lambda: None,
    )
    results = await asyncio.gather(*(batcher.embed(["a"], role="query") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, errors.Misconfigured) for result in results)


async def test_closing_tells_everybody_to_come_back_later():
    worker = FakeWorker()
    worker.may_answer.clear()
    batcher = batcher_of(worker)
    calls = [asyncio.create_task(batcher.embed([f"{number}"] * 40, role="document")) for number in range(8)]
    await asyncio.sleep(0.01)
    await batcher.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, errors.RetryLater) for result in results)


async def test_paused_it_lets_go_of_what_is_in_flight_and_resumed_it_sends_all_of_it_again_in_order():
    worker = FakeWorker()
    worker.may_answer.clear()
    batcher = batcher_of(worker)
    calls = [
        asyncio.create_task(batcher.embed([f"{n} text {i}" for i in range(40)], role="document")) for n in range(3)
    ]
    while len(worker.requests) < 2:
        await asyncio.sleep(0)
    batcher.pause()
    await asyncio.sleep(0.01)
    assert (batcher.in_flight, batcher.waiting) == (0, 120)
    worker.may_answer.set()
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls)
    batcher.resume()
    answers = await asyncio.gather(*calls)
    assert [rows(answer) for answer in answers] == [expected([f"{n} text {i}" for i in range(40)]) for n in range(3)]
    assert worker.at_once == 0
