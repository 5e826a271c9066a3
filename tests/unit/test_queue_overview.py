"""The queue's page, from values alone: sums, ages, rate and time left."""

from msearchd.control.replies import ProgressReply
from msearchd.domain.job import JobState, Outcome
from msearchd.jobs.overview import Overview, Reason, StepLine
from msearchd.orchestrator.queue_page import queue_page

NOW = 1_700_000_000_000


def overview(**changes) -> Overview:
    fields = {
        "steps": (
            StepLine("embed", "mini", {JobState.READY: 30, JobState.FAILED: 2}, NOW - 90_000),
            StepLine("ocr", "", {JobState.RUNNING: 1, JobState.BLOCKED: 4}, NOW - 5_000),
        ),
        "reasons": (Reason(JobState.FAILED, "embed", "broken", 2, NOW - 1000),),
        "pauses": (),
        "jobs_per_s": 2.0,
        "ended": {Outcome.DONE: 120},
        "next_due_ms": None,
    }
    return Overview(**(fields | changes))


def test_the_page_adds_up_and_says_how_old_the_oldest_is():
    page = queue_page(overview(), now_ms=NOW, progress=ProgressReply())
    assert page.queue.ready == 30
    assert (page.queue.running, page.queue.blocked, page.queue.failed) == (1, 4, 2)
    assert page.queue.by_step == {"embed": 30}
    assert page.queue.oldest_ready_s == page.oldest_s == 90.0
    assert [(step.step, step.target, step.oldest_s) for step in page.steps] == [
        ("embed", "mini", 90.0),
        ("ocr", "", 5.0),
    ]
    assert (page.reasons[0].state, page.reasons[0].jobs) == ("failed", 2)


def test_the_time_left_is_the_one_of_the_status():
    assert queue_page(overview(), now_ms=NOW, progress=ProgressReply(eta_s=12.5)).eta_s == 12.5
    assert queue_page(overview(), now_ms=NOW, progress=ProgressReply()).eta_s is None


def test_a_clock_that_was_set_back_gives_no_negative_age():
    page = queue_page(overview(next_due_ms=NOW - 60_000), now_ms=NOW - 3_600_000, progress=ProgressReply())
    assert page.oldest_s == 0.0
    assert page.steps[0].oldest_s == 0.0
    late = queue_page(overview(next_due_ms=NOW - 60_000), now_ms=NOW, progress=ProgressReply())
    assert late.next_due_s == 0.0


def test_an_empty_queue_is_an_empty_page():
    page = queue_page(overview(steps=(), reasons=(), ended={}, jobs_per_s=0.0), now_ms=NOW, progress=ProgressReply())
    assert page.steps == []
    assert page.oldest_s is None
    assert page.queue.ready == 0
