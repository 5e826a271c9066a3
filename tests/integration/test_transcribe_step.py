"""The transcribe step on a real catalog and queue: portions, resuming, and what is owed afterwards."""

import pytest
from orchestrator_world import OrchestratorWorld

from msearchd import errors
from msearchd.domain.asset import AssetState
from msearchd.domain.job import Owed, Step
from msearchd.domain.media import Extraction, Segment, SegmentKind
from msearchd.domain.sample import Sound, TimedText
from msearchd.domain.space import ModelKey
from msearchd.media import audio
from msearchd.orchestrator import plan
from msearchd.orchestrator.arrears import Arrears
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.transcribe import TranscribeStep
from msearchd.store.catalog.question import Question

WHISPER = ModelKey("whisper")
MINUTE_MS = 60_000


class Ears:
    """Readers of sound and a model of speech: every 20 s somebody says when. `error` is raised after `good` portions."""

    def __init__(self):
        self.asked = []
        self.good, self.error = 1 << 30, None

    async def sounds(self, path, identified, *, rate, spans):
        [(t0, t1)] = spans
        self.asked.append((t0, t1))
        if self.error is not None and len(self.asked) > self.good:
            raise self.error
        self.at = t0
        return [Sound(rate, bytes(4 * rate * (t1 - t0) // 1000))]

    async def transcribe(self, sound, *, model, lane, deadline_s):
        assert model == WHISPER
        for start in range(0, sound.duration_ms, 20_000):
            yield TimedText(start, start + 1_000, f"minute{(self.at + start) // MINUTE_MS}")


@pytest.fixture
async def world(tmp_path):
    world = await OrchestratorWorld(tmp_path).open()
    world.ears = Ears()
    world.serves = plan.Models(world.change.targets(), WHISPER)
    world.transcribe = TranscribeStep(
        catalog=world.catalog, outcomes=world.outcomes, readers=world.ears, pool=world.ears,
        models=lambda: world.serves, content_locks=KeyedLocks(), ask_for_scan=lambda *_: None, deadline_s=60,
    )  # fmt: skip
    world.runner._steps[Step.TRANSCRIBE] = world.transcribe.run
    yield world
    await world.close()


async def _recording(world, *, minutes=12):
    """A known file with sound, its transcript owed."""
    asset = await world.save(b"talk.mp3", "bytes")
    await world.settle(Step.IDENTIFY, Step.EXTRACT)
    content = await world.content_of(b"talk.mp3")
    places = [
        Segment(SegmentKind.AUDIO, n, t0_ms=t0, t1_ms=t1)
        for n, (t0, t1) in enumerate(audio.windows_of(minutes * MINUTE_MS))
    ]

    def write(c):
        world.catalog.extracted_in(c, content.id, Extraction(tuple(places)))
        world.queue.enqueue_in(c, [Owed(asset, Step.TRANSCRIBE, WHISPER)])

    await world.database.write(write)
    return asset, content.id


async def _transcript(world, content):
    found = await world.catalog.segments(content)
    return [(s.seq, s.text, s.t0_ms) for s in found if s.kind is SegmentKind.TRANSCRIPT]


async def test_speech_is_found_by_words_with_its_time_and_its_text_is_owed_to_the_text_model(world):
    asset, content = await _recording(world)
    await world.settle(Step.TRANSCRIBE)
    assert world.ears.asked == [(0, 300_000), (300_000, 600_000), (600_000, 720_000)]
    hits = {(hit.kind, hit.seq) for hit in await world.catalog.words(Question.parse("minute11"), limit=10)}
    places = [s for s in await world.catalog.segments(content) if (s.kind, s.seq) in hits]
    assert places
    assert all(p.kind is SegmentKind.TRANSCRIPT and p.t0_ms // MINUTE_MS == 11 for p in places)
    jobs = [(job.step, job.target) for job in await world.queue.jobs_of(asset)]
    assert jobs == [(Step.EMBED, str(model)) for model in world.serves.of_text()]
    assert (await world.catalog.content(content)).is_heard


async def test_cut_off_in_the_middle_it_goes_on_with_the_portion_that_it_was_in(world):
    asset, content = await _recording(world)
    world.ears.good, world.ears.error = 2, errors.RetryLater("the worker was killed", after_s=0.0)
    await world.settle(Step.TRANSCRIBE)
    assert [text for _, text, _ in await _transcript(world, content)][-1].startswith("minute9")
    assert (await world.catalog.content(content)).heard_until_ms == 600_000
    world.ears.asked, world.ears.error = [], None
    world.now_ms += 3_600_000
    await world.database.write(lambda c: world.queue.enqueue_in(c, [Owed(asset, Step.TRANSCRIBE, WHISPER)]))
    await world.settle(Step.TRANSCRIBE)
    assert world.ears.asked == [(600_000, 720_000)]
    found = await _transcript(world, content)
    assert [seq for seq, _, _ in found] == list(range(len(found)))
    assert [t0 for _, _, t0 in found] == sorted({t0 for _, _, t0 in found})
    assert found[-1][1].startswith("minute11")


async def test_a_sound_that_cannot_be_decoded_fails_with_the_reason_and_its_tags_are_embedded(world):
    asset, content = await _recording(world)
    tags = Segment(SegmentKind.METADATA, 0, "Title: Nightfall")
    await world.database.write(
        lambda c: world.catalog.extracted_in(
            c, content, Extraction((tags, Segment(SegmentKind.AUDIO, 0, t0_ms=0, t1_ms=9_000)))
        )
    )
    world.ears.good, world.ears.error = 0, errors.BadAsset("its sound cannot be decoded: no frames")
    await world.settle(Step.TRANSCRIBE)
    jobs = {job.step: job for job in await world.queue.jobs_of(asset)}
    assert "cannot be decoded" in jobs[Step.TRANSCRIBE].error
    assert jobs.keys() == {Step.TRANSCRIBE, Step.EMBED}


async def test_switched_on_speech_is_owed_by_every_sound_and_switched_off_its_jobs_are_forgotten(world):
    asset, content = await _recording(world)
    speech = {"model": WHISPER}
    arrears = Arrears(
        database=world.database, catalog=world.catalog, queue=world.queue, outcomes=world.outcomes,
        spaces=world.spaces, text_models=lambda: (), filling=lambda: (), speech_model=lambda: speech["model"],
    )  # fmt: skip
    await world.settle(Step.TRANSCRIBE)
    await world.database.write(lambda c: c.execute("UPDATE content SET heard_ms = NULL, heard_until_ms = 0"))
    await arrears.embed()
    assert [(job.step, job.target) for job in await world.queue.jobs_of(asset)] == [(Step.TRANSCRIBE, "whisper")]
    speech["model"] = None
    await arrears.embed()
    assert await world.queue.jobs_of(asset) == []
    assert await world.state(b"talk.mp3") is AssetState.INDEXED
    assert await _transcript(world, content)  # switched off, it takes nothing away
