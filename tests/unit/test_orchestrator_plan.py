"""Which steps are owed, and the small pure parts around it."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.job import JobState, Step
from msearchd.domain.media import SegmentKind
from msearchd.domain.space import ModelKey
from msearchd.orchestrator.keyed_locks import KeyedLocks
from msearchd.orchestrator.plan import ContentProgress, Models, after_reading, steps_owed
from msearchd.orchestrator.progress import RateMeter, eta_s

MINILM = ModelKey("all-minilm-l6-v2")
CLIP, CLAP, WHISPER = ModelKey("clip"), ModelKey("clap"), ModelKey("whisper")
TEXT = Models({MINILM: "text"})
ALL = Models({MINILM: "text", CLIP: "image", CLAP: "audio"}, WHISPER)


def content(**changes):
    facts = {
        "readable_steps": (Step.EXTRACT, Step.OCR),
        "is_extracted": False,
        "wants_ocr": False,
        "has_ocr": False,
        "segments": 0,
        "embedded_by": frozenset(),
    }
    return ContentProgress(**{**facts, **changes})


def test_an_unread_document_is_extracted_first():
    assert steps_owed(content(), models=TEXT) == ((Step.EXTRACT, ""),)


def test_a_type_that_cannot_be_read_owes_nothing():
    assert steps_owed(content(readable_steps=()), models=TEXT) == ()


def test_a_scanned_page_is_read_before_it_is_embedded():
    scanned = content(is_extracted=True, wants_ocr=True, segments=1)
    assert steps_owed(scanned, models=TEXT) == ((Step.OCR, ""),)


def test_what_a_scan_has_besides_pixels_is_embedded_when_ocr_cannot_run():
    scanned = content(is_extracted=True, wants_ocr=True, segments=1)
    assert after_reading(scanned, text_models=[MINILM]) == ((Step.EMBED, MINILM),)


def test_a_new_model_owes_only_its_own_embedding():
    known = content(is_extracted=True, segments=3, embedded_by=frozenset({MINILM}))
    assert steps_owed(known, models=Models({MINILM: "text", ModelKey("other"): "text"})) == ((Step.EMBED, "other"),)


def test_a_text_is_owed_to_the_dense_and_to_the_sparse_model_alike():
    both = Models({MINILM: "text", ModelKey("splade"): "sparse", CLIP: "image"})
    text = content(is_extracted=True, segments=3)
    assert steps_owed(text, models=both) == ((Step.EMBED, MINILM), (Step.EMBED, "splade"))
    half = content(is_extracted=True, segments=3, embedded_by=frozenset({MINILM}))
    assert steps_owed(half, models=both) == ((Step.EMBED, "splade"),)
    assert steps_owed(content(is_extracted=True, wants_ocr=True, segments=3), models=both) == ((Step.OCR, ""),)


def test_a_file_without_text_owes_no_embedding():
    assert steps_owed(content(is_extracted=True), models=TEXT) == ()


def test_a_picture_is_embedded_at_once_and_its_text_after_ocr():
    photo = content(is_extracted=True, wants_ocr=True, segments=1, samples=frozenset({SegmentKind.IMAGE}))
    assert steps_owed(photo, models=ALL) == ((Step.EMBED, CLIP), (Step.OCR, ""))
    assert steps_owed(photo, models=TEXT) == ((Step.OCR, ""),)


def test_a_sound_is_embedded_at_once_and_written_down_before_its_text_is_embedded():
    sound = content(is_extracted=True, segments=1, samples=frozenset({SegmentKind.AUDIO}))
    assert steps_owed(sound, models=ALL) == ((Step.EMBED, CLAP), (Step.TRANSCRIBE, WHISPER))
    assert after_reading(sound, text_models=[MINILM]) == ((Step.EMBED, MINILM),)
    heard = content(is_extracted=True, segments=1, samples=frozenset({SegmentKind.AUDIO}), is_heard=True)
    assert steps_owed(heard, models=ALL) == ((Step.EMBED, CLAP), (Step.EMBED, MINILM))


def test_a_model_that_is_switched_off_is_owed_nothing():
    sound = content(is_extracted=True, segments=1, samples=frozenset({SegmentKind.AUDIO}))
    assert steps_owed(sound, models=Models({})) == ()


KINDS = st.frozensets(st.sampled_from([SegmentKind.IMAGE, SegmentKind.AUDIO, SegmentKind.PAGE]))


@given(
    samples=KINDS,
    extracted=st.booleans(),
    wants=st.booleans(),
    has=st.booleans(),
    segments=st.integers(0, 3),
    embedded=st.frozensets(st.sampled_from([MINILM, CLIP, CLAP])),
    heard=st.booleans(),
)
def test_doing_what_is_owed_always_ends(samples, extracted, wants, has, segments, embedded, heard):
    fixed = {"wants_ocr": wants, "segments": segments, "samples": samples}
    state = content(is_extracted=extracted, has_ocr=has, embedded_by=embedded, is_heard=heard, **fixed)
    for _ in range(6):
        owed = steps_owed(state, models=ALL)
        if not owed:
            return
        done = {
            "is_extracted": state.is_extracted,
            "has_ocr": state.has_ocr,
            "is_heard": state.is_heard,
            "embedded_by": state.embedded_by,
        }
        for step, target in owed:
            if step is Step.EXTRACT:
                done["is_extracted"] = True
            elif step is Step.OCR:
                done["has_ocr"] = True
            elif step is Step.TRANSCRIBE:
                done["is_heard"] = True
            else:
                assert ModelKey(target) not in state.embedded_by, "embedded twice"
                done["embedded_by"] |= {ModelKey(target)}
        state = content(**fixed, **done)
    raise AssertionError(state)


async def test_work_on_equal_bytes_takes_turns_and_leaves_no_lock_behind():
    locks, log = KeyedLocks(), []

    async def work(name):
        async with locks.hold("same"):
            log.append(f"{name} in")
            await asyncio.sleep(0)
            log.append(f"{name} out")

    await asyncio.gather(work("a"), work("b"))
    assert log == ["a in", "a out", "b in", "b out"]
    assert not locks._locks


async def test_groups_that_share_contents_never_wait_for_each_other_in_a_circle():
    locks = KeyedLocks()

    async def work(keys):
        async with locks.hold_all(keys):
            await asyncio.sleep(0)

    async with asyncio.timeout(1):
        await asyncio.gather(*(work({"a", "b", "c"} - {drop}) for drop in "abcabc"))


def test_a_rate_counts_the_last_minute_only():
    meter = RateMeter()
    meter.add(100, now=0.0)
    meter.add(60, now=100.0)
    assert meter.per_s(now=130.0) == 2.0
    assert meter.per_s(now=1000.0) == 0.0


def test_nothing_pending_is_done_now_and_no_rate_gives_no_promise():
    assert eta_s(0, 0.0) == 0.0
    assert eta_s(10, 0.0) is None
    assert eta_s(10, 2.0) == 5.0


def test_job_states_cover_every_state_of_an_asset_with_open_work():
    from msearchd.orchestrator.outcomes import state_from_jobs

    assert all(state_from_jobs({state: 1}) is not None for state in JobState)
    assert state_from_jobs({}) is None
