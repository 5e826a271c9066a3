"""Speech of a worker that dies or has to step aside."""

import asyncio

import pytest

from msearchd.aio.child import LinkLost
from msearchd.domain.sample import Sound
from msearchd.inference.hearing import Hearing
from msearchd.inference.spec import Lane

SOUND = Sound(1000, bytes(4 * 3000))


class Frame:
    def __init__(self, begin_ms, end_ms):
        self.args = {"t0": begin_ms, "t1": end_ms, "text": "word"}


class Worker:
    """Tells a piece a second; dies once after the first."""

    def __init__(self):
        self.asked = []

    async def ask(self, op, args, body, lane):
        self.asked.append(len(body))
        for second in range(len(body) // 4000):
            if len(self.asked) == 1 and second == 1:
                raise LinkLost("it died")
            yield Frame(second * 1000, second * 1000 + 1000)

    async def forgive(self):
        pass


async def heard(hearing, lane):
    return [(piece.t0_ms, piece.t1_ms) async for piece in hearing.transcribe(SOUND, language="", lane=lane)]


@pytest.mark.parametrize("lane", list(Lane))
async def test_a_worker_that_dies_goes_on_after_the_last_piece(lane):
    worker = Worker()
    hearing = Hearing(worker.ask, forgive=worker.forgive)
    assert await heard(hearing, lane) == [(0, 1000), (1000, 2000), (2000, 3000)]
    assert worker.asked == [12000, 8000]
    assert hearing.streams == 0


async def test_bulk_work_rests_in_a_pause_and_who_waits_for_an_answer_does_not():
    for lane, rests in ((Lane.INTERACTIVE, False), (Lane.BULK, True)):
        worker = Worker()
        hearing = Hearing(worker.ask, forgive=worker.forgive)
        hearing.pause()
        hearer = asyncio.create_task(heard(hearing, lane))
        done, _ = await asyncio.wait({hearer}, timeout=0.2)
        assert bool(done) != rests
        assert hearing.streams == 0  # at rest it holds no worker
        hearing.resume()
        assert len(await asyncio.wait_for(hearer, 5)) == 3
