import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msearchd.inference.residency import (
    HOST,
    DoesNotFit,
    Load,
    Resident,
    Wanted,
    choose_device,
    fit_together,
    idle_too_long,
    is_memory_back,
    plan_residency,
    wants_copy,
)

NOW = 100.0
GPUS = ("cuda:0", "cuda:1")
RESIDENTS = st.lists(
    st.builds(
        Resident,
        seat=st.sampled_from(list("abcdefgh")),
        bytes_on=st.dictionaries(st.sampled_from([HOST, *GPUS]), st.integers(1, 100)),
        last_used_s=st.floats(0, NOW),
        reload_s=st.floats(0, 60),
        is_busy=st.booleans(),
        is_pinned=st.booleans(),
        group=st.sampled_from(["", "g"]),
        keep_s=st.floats(0, 50),
    ),
    unique_by=lambda resident: resident.seat,
)
NEEDS = st.fixed_dictionaries({HOST: st.integers(1, 100)}, optional={"cuda:0": st.integers(1, 100)})
BUDGETS = st.fixed_dictionaries({device: st.integers(100, 400) for device in (HOST, *GPUS)})
LIMITS = st.integers(0, 4)


def resident(seat, size, used, **more):
    return Resident(seat=seat, bytes_on={HOST: size}, last_used_s=used, **more)


def wanted(size=40, seat="wanted", **more):
    return Wanted(seat=seat, bytes_on={HOST: size}, **more)


def fits(residents, want, budgets, limit):
    """The rule itself, in the plainest words."""
    loaded = [*residents, want]
    if limit and len(loaded) > limit:
        return False
    if want.group and any(one.group == want.group for one in residents):
        return False
    return all(sum(one.bytes_on.get(device, 0) for one in loaded) <= budgets[device] for device in want.bytes_on)


@given(RESIDENTS, NEEDS, st.sampled_from(["", "g"]), BUDGETS, LIMITS)
def test_a_busy_or_pinned_model_is_never_unloaded(residents, needs, group, budgets, limit):
    want = Wanted(seat="wanted", bytes_on=needs, group=group)
    plan = plan_residency(residents, want, budgets=budgets, now_s=NOW, max_models=limit)
    kept = {one.seat for one in residents if one.is_busy or one.is_pinned}
    assert not kept & set(plan.unload)


@given(RESIDENTS, NEEDS, st.sampled_from(["", "g"]), BUDGETS, LIMITS)
def test_a_plan_is_never_over_the_budget_and_nobody_goes_who_could_stay(residents, needs, group, budgets, limit):
    want = Wanted(seat="wanted", bytes_on=needs, group=group)
    plan = plan_residency(residents, want, budgets=budgets, now_s=NOW, max_models=limit)
    left = [one for one in residents if one.seat not in plan.unload]
    assert plan.is_enough == fits(
        left if plan.is_enough else [one for one in residents if one.is_busy or one.is_pinned], want, budgets, limit
    )
    if not plan.is_enough:
        assert plan.unload == ()
    for seat in plan.unload:
        back = [one for one in residents if one.seat == seat]
        assert not fits([*left, *back], want, budgets, limit)


@given(RESIDENTS, st.floats(0, 200))
def test_idle_time_never_unloads_a_busy_or_pinned_model(residents, now):
    by_seat = {one.seat: one for one in residents}
    for seat in idle_too_long(residents, now_s=now):
        one = by_seat[seat]
        assert not one.is_busy
        assert not one.is_pinned
        assert now - one.last_used_s >= one.keep_s > 0


@given(RESIDENTS, NEEDS, BUDGETS)
def test_the_device_chosen_is_one_that_the_model_can_fit(residents, needs, budgets):
    options = dict.fromkeys(GPUS, needs.get("cuda:0", 300))
    want = Wanted(seat="wanted", bytes_on={HOST: needs[HOST]})
    device = choose_device(options, residents, want, budgets=budgets, now_s=NOW)
    if device is None:
        assert all(options[gpu] > budgets[gpu] for gpu in GPUS)
    else:
        assert options[device] <= budgets[device]


def test_the_least_recently_used_model_goes_first():
    plan = plan_residency([resident("new", 40, 90), resident("old", 40, 10)], wanted(), budgets={HOST: 100}, now_s=NOW)
    assert plan.unload == ("old",)


def test_of_two_equally_old_models_the_larger_one_goes_and_the_one_that_loads_slowly_stays():
    large, small = resident("large", 60, 10), resident("small", 40, 10)
    assert plan_residency([large, small], wanted(60), budgets={HOST: 120}, now_s=NOW).unload == ("large",)
    slow, quick = resident("slow", 40, 10, reload_s=60), resident("quick", 40, 10, reload_s=1)
    assert plan_residency([slow, quick], wanted(), budgets={HOST: 100}, now_s=NOW).unload == ("quick",)


def test_a_model_on_another_device_takes_no_room_here():
    there = Resident(seat="gpu", bytes_on={"cuda:0": 90}, last_used_s=0)
    assert plan_residency([there], wanted(50), budgets={HOST: 100, "cuda:0": 100}, now_s=NOW).unload == ()


def test_a_model_larger_than_everything_says_so_with_advice():
    with pytest.raises(DoesNotFit) as caught:
        plan_residency([], wanted(2 << 30, "huge"), budgets={HOST: 1 << 30}, now_s=NOW)
    assert "2048 MiB" in str(caught.value)
    assert caught.value.hint
    assert caught.value.key == "model:huge"


def test_two_models_that_do_not_fit_together_take_turns():
    a, b = resident("a", 60, 1), resident("b", 60, 2)
    assert plan_residency([a], wanted(60, "b"), budgets={HOST: 100}, now_s=NOW).unload == ("a",)
    assert plan_residency([b], wanted(60, "a"), budgets={HOST: 100}, now_s=NOW).unload == ("b",)


def test_models_of_one_group_are_never_loaded_together():
    other = resident("other", 1, 0, group="g")
    plan = plan_residency([other], wanted(1, group="g"), budgets={HOST: 100}, now_s=NOW)
    assert plan.unload == ("other",)
    busy = dataclasses.replace(other, is_busy=True)
    assert not plan_residency([busy], wanted(1, group="g"), budgets={HOST: 100}, now_s=NOW).is_enough
    assert not fit_together([wanted(1, "a", group="g"), wanted(1, "b", group="g")], budgets={HOST: 100})


def test_among_several_gpus_the_one_with_most_free_memory_is_taken():
    there = Resident(seat="x", bytes_on={"cuda:0": 50}, last_used_s=0)
    budgets = {HOST: 100, "cuda:0": 100, "cuda:1": 90}
    assert choose_device(dict.fromkeys(GPUS, 40), [there], wanted(1), budgets=budgets, now_s=NOW) == "cuda:1"
    assert choose_device(dict.fromkeys(GPUS, 95), [there], wanted(1), budgets=budgets, now_s=NOW) == "cuda:0"
    assert choose_device(dict.fromkeys(GPUS, 500), [there], wanted(1), budgets=budgets, now_s=NOW) is None


def test_a_hot_model_gets_a_copy_where_a_device_is_free_and_the_work_outlasts_the_load():
    hot = Load(copies=1, max_copies=2, waiting_cost=100_000, cost_per_s=1000, load_s=5, free_devices=("cuda:1",))
    assert wants_copy(hot)
    assert not wants_copy(dataclasses.replace(hot, waiting_cost=10_000))
    assert not wants_copy(dataclasses.replace(hot, free_devices=()))
    assert not wants_copy(dataclasses.replace(hot, copies=2))


def test_memory_is_back_when_most_of_it_is_free():
    assert not is_memory_back(free_before=10, free_now=50, unloaded_bytes=100)
    assert is_memory_back(free_before=10, free_now=90, unloaded_bytes=100)
