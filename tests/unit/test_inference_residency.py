import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.domain.space import ModelKey
from msearchd.inference.residency import DoesNotFit, Resident, idle_too_long, plan_residency

RESIDENTS = st.lists(
    st.builds(
        Resident,
        model=st.sampled_from([ModelKey(name) for name in "abcdefgh"]),
        size_bytes=st.integers(1, 100),
        last_used_s=st.floats(0, 100),
        is_busy=st.booleans(),
        is_pinned=st.booleans(),
    ),
    unique_by=lambda resident: resident.model,
)


def resident(name, size, used, **flags):
    return Resident(ModelKey(name), size, used, **flags)


@given(RESIDENTS, st.integers(1, 100), st.integers(100, 400))
def test_a_busy_or_pinned_model_is_never_unloaded(residents, need, budget):
    plan = plan_residency(residents, ModelKey("wanted"), need_bytes=need, budget_bytes=budget)
    by_name = {one.model: one for one in residents}
    assert not any(by_name[name].is_busy or by_name[name].is_pinned for name in plan.unload)


@given(RESIDENTS, st.integers(1, 100), st.integers(100, 400))
def test_a_plan_that_is_enough_fits_and_unloads_no_model_in_vain(residents, need, budget):
    plan = plan_residency(residents, ModelKey("wanted"), need_bytes=need, budget_bytes=budget)
    sizes = {one.model: one.size_bytes for one in residents}
    left = sum(size for name, size in sizes.items() if name not in plan.unload) + need
    assert plan.is_enough == (left <= budget)
    if plan.unload:
        assert left + sizes[plan.unload[-1]] > budget


@given(RESIDENTS, st.floats(0, 200), st.floats(0, 50))
def test_idle_time_never_unloads_a_busy_or_pinned_model(residents, now, keep):
    by_name = {one.model: one for one in residents}
    for name in idle_too_long(residents, now_s=now, keep_s=keep):
        assert not by_name[name].is_busy
        assert not by_name[name].is_pinned
        assert now - by_name[name].last_used_s >= keep > 0


def test_the_least_recently_used_model_goes_first():
    plan = plan_residency(
        [resident("new", 40, 9), resident("old", 40, 1)], ModelKey("wanted"), need_bytes=40, budget_bytes=100
    )
    assert plan.unload == ("old",)


def test_a_model_on_another_device_takes_no_room_here():
    there = resident("gpu", 90, 0, device="cuda")
    assert plan_residency([there], ModelKey("wanted"), need_bytes=50, budget_bytes=100).unload == ()


def test_a_model_larger_than_everything_says_so_with_advice():
    with pytest.raises(DoesNotFit) as caught:
        plan_residency([], ModelKey("huge"), need_bytes=2 << 30, budget_bytes=1 << 30)
    assert "2048 MiB" in str(caught.value)
    assert caught.value.hint
    assert caught.value.key == "model:huge"


def test_two_models_that_do_not_fit_together_take_turns():
    a, b = resident("a", 60, 1), resident("b", 60, 2)
    assert plan_residency([a], ModelKey("b"), need_bytes=60, budget_bytes=100).unload == ("a",)
    assert plan_residency([b], ModelKey("a"), need_bytes=60, budget_bytes=100).unload == ("b",)
