import collections

from hypothesis import given
from hypothesis import strategies as st

from msearchd.inference import windows


def test_an_idle_worker_gets_a_lone_small_request_at_once():
    assert windows.may_send(1, in_flight=0, batch_cost=2048)


def test_while_one_window_computes_small_requests_are_gathered():
    assert not windows.may_send(100, in_flight=1, batch_cost=2048)
    assert windows.may_send(3 * 2048, in_flight=1, batch_cost=2048)


def test_no_more_than_two_windows_are_in_flight():
    assert not windows.may_send(10**9, in_flight=windows.MAX_IN_FLIGHT, batch_cost=2048)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=400))
def test_a_window_takes_at_least_one_passage_and_no_more_than_its_size(costs):
    count = windows.take_count([(cost, 0) for cost in costs], batch_cost=2048)
    assert 1 <= count <= len(costs)
    assert count == 1 or sum(costs[:count]) <= windows.BATCHES_PER_WINDOW * 2048


def test_the_first_open_batch_of_the_plan_was_at_work():
    assert windows.at_work([[3, 1], [0, 2]], answered={3, 1}, size=4) == (0, 2)
    assert windows.at_work([[3, 1], [0, 2]], answered={3}, size=4) == (1,)
    assert windows.at_work([], answered=(), size=3) == (0, 1, 2)
    assert windows.at_work([[0]], answered={0}, size=1) == ()


@given(st.integers(1, 64), st.data(), st.booleans())
def test_only_the_passages_that_kill_their_worker_are_given_up(size, data, was_killed):
    killers = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    crashes = collections.Counter()
    waiting, done, given_up, deaths = [tuple(range(size))], set(), set(), 0
    while waiting:
        group = waiting.pop()
        if not killers & set(group):
            done |= set(group)
            continue
        deaths += 1
        crashes.update(group)
        step = windows.after_crash(group, crashes=max(crashes[index] for index in group), was_killed=was_killed)
        if step.is_poison:
            given_up |= set(group)
        waiting.extend(step.again)
    assert given_up == killers
    assert done == set(range(size)) - killers
    assert deaths <= 2 + 2 * max(1, len(killers)) * (size.bit_length() + 1)


def test_a_crash_that_may_be_anybodys_repeats_the_batch_as_it_was():
    assert windows.after_crash((1, 2, 3), crashes=1, was_killed=False).again == ((1, 2, 3),)


def test_a_worker_killed_for_its_memory_gets_halves():
    assert windows.after_crash((1, 2, 3), crashes=1, was_killed=True).again == ((1, 2), (3,))
