import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.inference.worker import batches

LENGTHS = st.lists(st.integers(0, 512), max_size=200)
BUDGETS = st.integers(1, 8192)


@given(LENGTHS, BUDGETS)
def test_every_text_is_in_exactly_one_batch(lengths, budget):
    planned = batches.plan(lengths, budget_cost=budget, max_width=512)
    assert sorted(index for batch in planned for index in batch.items) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_no_batch_exceeds_the_budget_unless_it_is_one_text(lengths, budget):
    for batch in batches.plan(lengths, budget_cost=budget, max_width=512):
        assert batch.cost <= budget or len(batch.items) == 1


@given(LENGTHS, BUDGETS, st.integers(1, 512))
def test_every_text_fits_the_width_of_its_batch(lengths, budget, limit):
    lengths = [min(length, limit) for length in lengths]
    for batch in batches.plan(lengths, budget_cost=budget, max_width=limit):
        assert all(lengths[index] <= batch.width for index in batch.items)
        assert batch.width <= limit
        assert batch.width % batches.WIDTH_STEP == 0 or batch.width in {limit, max(lengths[i] for i in batch.items)}


@given(LENGTHS, BUDGETS)
def test_batches_come_longest_first_so_that_memory_ends_early_or_not_at_all(lengths, budget):
    widths = [batch.width for batch in batches.plan(lengths, budget_cost=budget, max_width=512)]
    assert widths == sorted(widths, reverse=True)


@given(LENGTHS, st.lists(BUDGETS, min_size=1, max_size=3))
def test_sizes_that_are_compared_are_cut_in_turns_from_the_same_texts(lengths, sizes):
    planned = batches.plan(lengths, budget_cost=sizes, max_width=512)
    assert sorted(index for batch in planned for index in batch.items) == list(range(len(lengths)))
    assert [batch.target for batch in planned] == [sizes[place % len(sizes)] for place in range(len(planned))]
    assert all(batch.cost <= batch.target or len(batch.items) == 1 for batch in planned)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=100))
def test_halves_hold_the_same_texts_and_are_never_wider(lengths):
    (batch,) = batches.plan(lengths, budget_cost=512 * 200, max_width=512)
    parts = batches.halves(batch, lengths, max_width=512)
    if len(lengths) == 1:
        assert parts == ()
    else:
        assert [index for part in parts for index in part.items] == list(batch.items)
        assert all(part.width <= batch.width and part.cost < batch.cost for part in parts)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.data())
def test_halving_finds_exactly_the_poison(lengths, data):
    poison = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    waiting = batches.plan(lengths, budget_cost=2048, max_width=512)
    done, refused, attempts = set(), set(), 0
    while waiting:
        batch = waiting.pop()
        attempts += 1
        if not poison & set(batch.items):
            done |= set(batch.items)
        elif parts := batches.halves(batch, lengths, max_width=512):
            waiting.extend(parts)
        else:
            refused |= set(batch.items)
    assert refused == poison
    assert done == set(range(len(lengths))) - poison
    assert attempts <= 2 * len(lengths)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
        RuntimeError("could not create a primitive"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_every_face_of_a_memory_shortage_is_known(error):
    assert batches.is_shortage(error)


def test_other_errors_are_no_shortage():
    assert not batches.is_shortage(ValueError("index out of range"))
