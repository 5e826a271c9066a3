"""Whose turn it is: nothing starves, however a lane groups its claims."""

from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.job import Priority
from msearchd.jobs.turns import kept_places


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_every_priority_always_gets_its_places_however_claims_are_grouped(limits):
    claimed, given_to = 0, dict.fromkeys(Priority, 0)
    for limit in limits:
        kept = kept_places(claimed, limit)
        assert sum(kept.values()) <= limit  # never more places than are claimed
        for priority, places in kept.items():
            given_to[priority] += places
        claimed += limit
        rounds = claimed // 16
        assert given_to[Priority.BACKFILL] >= 2 * rounds
        assert given_to[Priority.NORMAL] >= rounds
        assert given_to[Priority.LIVE] >= rounds
    assert given_to[Priority.INTERACTIVE] == 0  # the best needs none


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_claims_one_by_one_and_claims_together_keep_the_same_places(claimed, limit):
    one_by_one: dict[Priority, int] = {}
    for place in range(claimed, claimed + limit):
        for priority, places in kept_places(place, 1).items():
            one_by_one[priority] = one_by_one.get(priority, 0) + places
    assert kept_places(claimed, limit) == one_by_one
