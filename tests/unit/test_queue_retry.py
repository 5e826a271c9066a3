"""When a job is tried again, and whose turn it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.asset import AssetId
from msearchd.domain.job import LEGAL_MOVES, Job, JobId, JobState, Priority, Step
from msearchd.jobs import retry
from msearchd.jobs.turns import kept_places
from msearchd.settings.model import QueueSettings

SETTINGS = QueueSettings(max_attempts=3, retry_base_s=2.0, retry_cap_s=60.0)


def job(attempts: int) -> Job:
    return Job(JobId(1), AssetId(1), Step.EXTRACT, "", Priority.NORMAL, 1, attempts)


@pytest.mark.parametrize(("attempts", "least_ms", "most_ms"), [(1, 1000, 3000), (2, 2000, 6000)])
def test_the_wait_doubles_with_each_attempt(attempts, least_ms, most_ms):
    found = retry.next_attempt(job(attempts), "boom", settings=SETTINGS, now_ms=0)
    assert isinstance(found, retry.Delayed)
    assert least_ms <= found.run_at_ms <= most_ms


def test_the_last_attempt_fails_with_its_error():
    assert retry.next_attempt(job(3), "boom", settings=SETTINGS, now_ms=0) == retry.Failed("boom")


def test_a_thousand_files_that_failed_together_return_spread_out():
    spread = random.Random(1)
    times = {retry.next_attempt(job(1), "x", settings=SETTINGS, now_ms=0, spread=spread).run_at_ms for _ in range(1000)}
    assert len(times) > 500


def test_the_first_wait_of_an_outage_is_what_was_asked_for():
    assert retry.after_outage(1, after_s=5, settings=SETTINGS, now_ms=100) == retry.Delayed(5100)


@given(
    outages=st.integers(1, 10_000), after_s=st.floats(0, 1e9), attempts=st.integers(1, 10_000), seed=st.integers(0, 99)
)
def test_no_wait_ever_reaches_the_horizon(outages, after_s, attempts, seed):
    spread = random.Random(seed)
    horizon = retry.horizon_ms(SETTINGS, 0)
    assert retry.after_outage(outages, after_s=after_s, settings=SETTINGS, now_ms=0, spread=spread).run_at_ms < horizon
    patient = SETTINGS.model_copy(update={"max_attempts": 100_000})
    assert retry.next_attempt(job(attempts), "x", settings=patient, now_ms=0, spread=spread).run_at_ms < horizon


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_one_of_eight_places_is_always_kept_for_the_back_fill(limits):
    claimed = kept = 0
    for limit in limits:
        kept += kept_places(claimed, limit).get(Priority.BACKFILL, 0)
        claimed += limit
    assert claimed // 8 - 1 <= kept <= claimed // 8 + 1


@given(claimed=st.integers(0, 1000))
def test_every_lower_priority_has_a_place_within_sixteen_claims(claimed):
    assert set(kept_places(claimed, 16)) == {Priority.BACKFILL, Priority.NORMAL, Priority.LIVE}


def test_places_are_never_kept_for_more_than_the_limit():
    assert sum(kept_places(0, 8).values()) == 2
    assert kept_places(0, 1) == {}


def test_every_state_can_be_left():
    assert set(LEGAL_MOVES) == set(JobState)
    assert all(LEGAL_MOVES.values())
