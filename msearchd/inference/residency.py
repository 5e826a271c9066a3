"""Which models may stay in memory, and where the next one goes. Pure: values and `now` in, names out.

In: what is loaded, what is wanted, the budget of each device. Out: what to unload first, and the device.
Never names a model that is in use or pinned, never unloads one in vain.
A model takes bytes of several devices: its process lives in "host" memory, its weights perhaps on "cuda:0".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NewType

from msearchd import errors
from msearchd.domain.space import ModelKey

#: A loaded copy of a model: its key, or "key#2" for a second copy on another device.
Seat = NewType("Seat", str)
HOST: Final = "host"

_LEAST_RELOAD_S: Final = 0.05
#: Bytes back of those that an unloaded model had on an accelerator before the next load begins (Ollama's bound).
_BACK_SHARE: Final = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A loaded copy of a model. Times are seconds of one monotonic clock; `group`: never two of one at a time."""

    seat: Seat
    bytes_on: Mapping[str, int]
    last_used_s: float
    reload_s: float = 1.0
    is_busy: bool = False
    is_pinned: bool = False
    group: str = ""
    keep_s: float = 0.0  # unloaded when unused for this long; 0 keeps it


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A copy that is to be loaded, and the bytes that it needs."""

    seat: Seat
    bytes_on: Mapping[str, int]
    group: str = ""


@dataclass(frozen=True, slots=True)
class ResidencyPlan:
    """Unload these, in this order; then, if `is_enough` is False, wait until one of *in_the_way* is idle."""

    unload: tuple[Seat, ...] = ()
    is_enough: bool = True
    in_the_way: tuple[Seat, ...] = ()


class DoesNotFit(errors.Misconfigured):
    """A model is larger than the whole budget of its device."""


def plan_residency(
    residents: Sequence[Resident],
    wanted: Wanted,
    *,
    budgets: Mapping[str, int],
    now_s: float,
    max_models: int = 0,
) -> ResidencyPlan:
    """Say which idle models to unload so that *wanted* fits in *budgets* (bytes by device), beside at most
    *max_models* - 1 others (0: any number) and nobody of its group.

    Those go first that were unused longest, free most and load again fastest. Never names a model in use or pinned, and
    none of those named could stay. Where it is not enough nothing is unloaded. Raises DoesNotFit if even empty devices
    are too small.
    """
    for device, need_bytes in wanted.bytes_on.items():
        if need_bytes > budgets.get(device, 0):
            raise _does_not_fit(wanted.seat, device, need_bytes=need_bytes, budget_bytes=budgets.get(device, 0))
    others = [resident for resident in residents if resident.seat != wanted.seat]
    movable = sorted(
        (one for one in others if not one.is_busy and not one.is_pinned),
        key=lambda one: (-_worth_unloading(one, wanted, now_s=now_s), one.seat),
    )
    gone: list[Resident] = []
    for candidate in movable:
        if _fits(others, wanted, without=gone, budgets=budgets, max_models=max_models):
            break
        gone.append(candidate)
    if not _fits(others, wanted, without=gone, budgets=budgets, max_models=max_models):
        stuck = tuple(one.seat for one in others if one.is_busy or one.is_pinned)
        return ResidencyPlan(is_enough=False, in_the_way=stuck)
    # Whoever was named before a larger one came may be able to stay.
    for candidate in reversed(gone.copy()):
        rest = [one for one in gone if one is not candidate]
        if _fits(others, wanted, without=rest, budgets=budgets, max_models=max_models):
            gone = rest
    return ResidencyPlan(tuple(one.seat for one in gone))


def _fits(
    others: Sequence[Resident],
    wanted: Wanted,
    *,
    without: Sequence[Resident],
    budgets: Mapping[str, int],
    max_models: int,
) -> bool:
    left = [one for one in others if one not in without]
    if max_models and len(left) + 1 > max_models:
        return False
    if wanted.group and any(one.group == wanted.group for one in left):
        return False
    return all(
        sum(one.bytes_on.get(device, 0) for one in left) + need_bytes <= budgets.get(device, 0)
        for device, need_bytes in wanted.bytes_on.items()
        if need_bytes
    )


def _worth_unloading(resident: Resident, wanted: Wanted, *, now_s: float) -> float:
    """Age x bytes freed where they are needed / cost of loading it again (GreedyDual-Size with ages)."""
    freed = sum(min(size, wanted.bytes_on.get(device, 0)) for device, size in resident.bytes_on.items())
    age_s = max(0.0, now_s - resident.last_used_s)
    return age_s * (freed / 2**20 + 1) / max(_LEAST_RELOAD_S, resident.reload_s)


def fit_together(models: Sequence[Wanted], *, budgets: Mapping[str, int], max_models: int = 0) -> bool:
    """True where all of *models* can be loaded at the same time."""
    if max_models and len(models) > max_models:
        return False
    groups = [one.group for one in models if one.group]
    if len(groups) != len(set(groups)):
        return False
    devices = {device for one in models for device in one.bytes_on}
    return all(sum(one.bytes_on.get(device, 0) for one in models) <= budgets.get(device, 0) for device in devices)


def choose_device(
    options: Mapping[str, int],
    residents: Sequence[Resident],
    wanted: Wanted,
    *,
    budgets: Mapping[str, int],
    now_s: float,
    max_models: int = 0,
) -> str | None:
    """Which of *options* (accelerator: bytes that the model needs there) takes *wanted*: the one with the most free bytes
    among those that unload nobody, else the one that unloads least, else the first that only has to be waited for.

    None where it fits on none of them. *wanted* names its host bytes alone.
    """
    ranked: list[tuple[int, int, str]] = []
    for device, need_bytes in options.items():
        there = Wanted(seat=wanted.seat, bytes_on={**wanted.bytes_on, device: need_bytes}, group=wanted.group)
        try:
            plan = plan_residency(residents, there, budgets=budgets, now_s=now_s, max_models=max_models)
        except DoesNotFit:
            continue
        free = budgets.get(device, 0) - sum(one.bytes_on.get(device, 0) for one in residents)
        ranked.append((len(plan.unload) if plan.is_enough else 1_000, -free, device))
    return min(ranked)[2] if ranked else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a model's copies are. Cost units and seconds."""

    copies: int
    max_copies: int
    waiting_cost: int
    cost_per_s: float  # of one copy
    load_s: float
    free_devices: tuple[str, ...] = field(default=())  # accelerators where a copy fits and nobody must go


def wants_copy(load: Load) -> bool:
    """True where one more copy pays: the work that waits takes longer than loading it four times over."""
    if load.copies >= load.max_copies or not load.free_devices or load.cost_per_s <= 0:
        return False
    return load.waiting_cost / (load.cost_per_s * max(1, load.copies)) > 4 * max(load.load_s, 0.5)


def idle_too_long(residents: Sequence[Resident], *, now_s: float) -> tuple[Seat, ...]:
    """Models that nobody used for as long as they are kept; never one in use or pinned."""
    return tuple(
        one.seat
        for one in residents
        if one.keep_s > 0 and not one.is_busy and not one.is_pinned and now_s - one.last_used_s >= one.keep_s
    )


def is_memory_back(*, free_before: int, free_now: int, unloaded_bytes: int) -> bool:
    """True once most of what an unloaded model had on an accelerator is free: the driver gives it back after the exit."""
    return free_now - free_before >= _BACK_SHARE * unloaded_bytes


def _does_not_fit(seat: Seat, device: str, *, need_bytes: int, budget_bytes: int) -> DoesNotFit:
    model = ModelKey(seat.partition("#")[0])
    where = "this machine" if device == HOST else device
    message = (
        f"model {model!r} needs about {need_bytes / 2**20:.0f} MiB and {where} has "
        f"{budget_bytes / 2**20:.0f} MiB for models"
    )
    return DoesNotFit(
        message, key=f"model:{model}", hint='free memory, choose a smaller model, or set dtype = "bfloat16"'
    )
