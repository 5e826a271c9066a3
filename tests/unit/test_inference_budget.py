import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.inference.worker.budget import Budget, starting_budget

STEPS = st.lists(st.tuples(st.booleans(), st.integers(1, 20_000), st.floats(1e-4, 10)), max_size=120)


def work(budget, cost_of_batch, *, batches, fits=10**9, noise=0.0, seed=1):
    """Let the budget meet a machine whose batches of a size take `cost_of_batch(size)` seconds."""
    rng = random.Random(seed)
    for number in range(batches):
        sizes = budget.sizes()
        size = sizes[number % len(sizes)]
        if size > fits:
            budget = budget.after_shortage(size)
        else:
            seconds = cost_of_batch(size) * (1 + rng.uniform(-noise, noise))
            budget = budget.after_batch(size, seconds=seconds, target=size)
    return budget


@given(st.integers(64, 16384), st.booleans(), st.sampled_from(["text", "pair", "image", "audio"]), STEPS)
def test_a_budget_never_exceeds_what_the_settings_allow_and_never_ends(limit, is_cpu, kind, steps):
    for first in (starting_budget(kind, limit=limit, is_cpu=is_cpu), starting_budget(kind, is_cpu=is_cpu)):
        budget = first
        for is_good, used, seconds in steps:
            budget = budget.after_batch(used, seconds=seconds) if is_good else budget.after_shortage(used)
            assert budget.sizes()
            assert all(1 <= size <= budget.ceiling for size in budget.sizes())
            assert 1 <= budget.for_bulk() <= budget.cost <= budget.ceiling


@given(st.floats(300, 30_000), st.integers(0, 1000))
def test_the_size_in_use_ends_within_a_step_of_the_best_for_any_machine_with_one_best_size(best, seed):
    def seconds(size):  # the rate rises to its peak at `best` and falls behind it
        rate = 1000 * min(size / best, best / size) ** 0.3
        return size / rate

    budget = work(starting_budget("text", is_cpu=False), seconds, batches=400, noise=0.01, seed=seed)
    assert budget.trial == 0
    rate_of = {size: size / seconds(size) for size in (budget.cost, best)}
    assert rate_of[budget.cost] >= 0.85 * rate_of[best]


def test_a_machine_that_likes_large_batches_gets_them_and_one_that_does_not_keeps_small_ones():
    large = work(starting_budget("text", is_cpu=False), lambda size: 0.05 + size / 1e6, batches=600)
    assert large.cost > 50_000
    small = work(starting_budget("text", is_cpu=False), lambda size: size**1.3 / 1e6, batches=200)
    assert small.cost < 500


def test_a_shortage_halves_the_budget_and_full_batches_grow_it_back_below_what_failed():
    budget = starting_budget("text", is_cpu=False).after_shortage(2048)
    assert budget.cost == 1024
    budget = work(budget, lambda _size: 0.01, batches=400, fits=2000)
    assert 1024 < budget.cost <= 2000


@given(st.integers(300, 100_000), st.integers(0, 100))
def test_a_machine_that_runs_out_of_memory_is_asked_for_too_much_only_now_and_then(fits, seed):
    budget, shortages = starting_budget("text", is_cpu=False), 0
    rng = random.Random(seed)
    for number in range(600):
        size = budget.sizes()[number % len(budget.sizes())]
        if size > fits:
            shortages += 1
            budget = budget.after_shortage(size)
        else:
            budget = budget.after_batch(size, seconds=(0.05 + size / 1e6) * rng.uniform(0.99, 1.01), target=size)
    assert shortages <= 12
    assert budget.cost <= fits


def test_bulk_batches_on_a_slow_cpu_are_soon_over():
    budget = starting_budget("text", limit=2048, is_cpu=True).after_batch(2048, seconds=0.5)
    assert budget.for_bulk() == 819
    assert dataclasses.replace(budget, max_batch_s=None).for_bulk() == 2048


def test_a_limit_of_the_settings_is_the_size_from_the_start_and_nothing_is_tried():
    assert starting_budget("text", limit=512, is_cpu=True).sizes() == (512,)


def test_a_worker_whose_predecessor_was_killed_begins_smaller():
    budget = starting_budget("text", limit=2048, first_cost=512, is_cpu=True)
    assert (budget.cost, budget.ceiling) == (512, 2048)


def test_a_successor_begins_where_its_predecessor_settled_and_compares_no_more():
    settled = work(starting_budget("text", is_cpu=False), lambda size: 0.05 + size / 1e6, batches=600)
    heir = starting_budget("text", learned=settled.as_learned(), is_cpu=False)
    assert heir.sizes() == (settled.cost,)


def test_what_was_settled_is_put_in_question_again_after_a_long_time():
    settled = work(starting_budget("text", is_cpu=False), lambda size: size**1.2 / 1e6, batches=300)
    assert settled.trial == 0
    # The same machine with a faster device: more is better now.
    again = work(settled, lambda size: 0.05 + size / 1e6, batches=3000)
    assert again.cost > 10 * settled.cost


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_other_kinds_have_a_budget_of_their_own(kind):
    assert isinstance(starting_budget(kind, is_cpu=True), Budget)


def test_a_few_texts_of_all_lengths_are_cut_finer_on_a_cpu_alone():
    cpu = starting_budget("text", limit=2048, is_cpu=True)
    assert (cpu.for_questions(), cpu.for_bulk()) == (512, 2048)
    assert starting_budget("text", limit=128, is_cpu=True).for_questions() == 128
    assert starting_budget("text", limit=2048, is_cpu=False).for_questions() == 2048


def test_batches_cut_for_questions_do_not_decide_between_two_sizes():
    budget = starting_budget("text", is_cpu=True)
    assert budget.trial > budget.cost
    for _ in range(100):
        budget = budget.after_batch(512, seconds=0.05, effort_s=0.05, target=512)
    assert (budget.at_cost.batches, budget.at_trial.batches) == (0, 0)
