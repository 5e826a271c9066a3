import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.orchestrator.model_turns import ModelTurns, Turn, plan_turns

MODELS = list("abcd")
TURNS = st.dictionaries(
    st.sampled_from(MODELS), st.builds(Turn, since_s=st.floats(0, 100), is_busy=st.booleans(), is_over=st.booleans())
)
WANTING = st.lists(st.sampled_from(list("efgh")), unique=True)


def at_most(count):
    return lambda models: len(models) <= count


@given(TURNS, WANTING, st.integers(1, 5), st.floats(0, 200))
def test_models_that_do_not_fit_together_never_get_a_turn_at_the_same_time(turns, wanting, room, now):
    planned = plan_turns(turns, wanting, fit_together=at_most(room), now_s=now, turn_s=20)
    come_in = set(planned) - set(turns)
    assert not come_in or len(planned) <= room


@given(TURNS, WANTING, st.integers(1, 5), st.floats(0, 200))
def test_a_busy_model_never_loses_its_turn_before_its_time_and_none_that_has_jobs_in_hand_is_forgotten(
    turns, wanting, room, now
):
    planned = plan_turns(turns, wanting, fit_together=at_most(room), now_s=now, turn_s=20)
    for model, turn in turns.items():
        if turn.is_busy:
            assert model in planned
            assert planned[model].is_over == turn.is_over or now - turn.since_s >= 20
        if not wanting:
            assert planned[model] == turn


@given(st.lists(st.integers(0, 300), min_size=2, max_size=4), st.integers(1, 3), st.integers(1, 9))
def test_every_model_gets_through_its_jobs_however_many_the_others_have(jobs, room, job_s):
    """One job at a time for each model in turn; a turn is 20 s. Time is simulated."""
    left = dict(zip(MODELS, jobs, strict=False))
    turns, wanting, now, waited = {}, [], 0.0, dict.fromkeys(left, 0.0)
    switches = 0
    while any(left.values()):
        wanting = [m for m in wanting if m not in turns] + [
            m for m in left if left[m] and m not in turns and m not in wanting
        ]
        before = set(turns)
        turns = plan_turns(turns, wanting, fit_together=at_most(room), now_s=now, turn_s=20)
        switches += len(set(turns) - before)
        assert len(turns) <= room
        now += job_s
        for model, owed in left.items():
            if model in turns:
                waited[model] = 0.0
            elif owed:
                waited[model] += job_s
                assert waited[model] <= len(left) * (20 + 3 * job_s)
        for model, turn in list(turns.items()):
            if turn.is_over:
                del turns[model]
                continue
            left[model] = max(0, left[model] - 1)
            turns[model] = Turn(turn.since_s, is_busy=left[model] > 0)
    assert switches <= len(left) + sum(jobs) * job_s / 20 + len(left)


class Memory:
    def __init__(self, room=1):
        self.room = room

    def fit_together(self, models):
        return len(models) <= self.room

    def turn_s(self):
        return 20.0


async def test_a_model_alone_has_its_turn_at_once_and_keeps_it():
    turns = ModelTurns(Memory(), now_s=lambda: 0.0)
    assert not turns.may_claim("a")
    await turns.wait_turn("a")
    turns.note_busy("a", is_busy=False)
    assert turns.may_claim("a")


async def test_the_next_model_waits_until_the_first_has_nothing_left():
    turns = ModelTurns(Memory(), now_s=lambda: 0.0)
    await turns.wait_turn("a")
    waiting = asyncio.create_task(turns.wait_turn("b"), name="b")
    await asyncio.sleep(0)
    assert turns.may_claim("a")
    assert not waiting.done()
    turns.note_busy("a", is_busy=False)
    await asyncio.wait_for(waiting, 1)
    assert turns.may_claim("b")
    assert not turns.may_claim("a")


async def test_while_another_waits_a_turn_is_over_after_its_time_and_its_jobs_in_hand_end_first():
    now = [0.0]
    turns = ModelTurns(Memory(), now_s=lambda: now[0])
    await turns.wait_turn("a")
    waiting = asyncio.create_task(turns.wait_turn("b"), name="b")
    await asyncio.sleep(0)
    now[0] = 21.0
    assert not turns.may_claim("a")
    await asyncio.sleep(0)
    assert not waiting.done()
    turns.note_busy("a", is_busy=False)
    await asyncio.wait_for(waiting, 1)


async def test_models_that_fit_together_work_side_by_side():
    turns = ModelTurns(Memory(room=2), now_s=lambda: 0.0)
    await turns.wait_turn("a")
    await turns.wait_turn("b")
    assert turns.may_claim("a")
    assert turns.may_claim("b")


async def test_one_who_stops_waiting_does_not_end_anybodys_turn():
    turns = ModelTurns(Memory(), now_s=lambda: 100.0)
    await turns.wait_turn("a")
    waiting = asyncio.create_task(turns.wait_turn("b"), name="b")
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert turns.may_claim("a")
