"""Which models may stay in memory. Pure: values and `now` in, names out.

In: what is loaded, what is wanted, the budget. Out: what to unload first. Never names a model that is in use or pinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msearchd import errors
from msearchd.domain.space import ModelKey


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model. Times are seconds of one monotonic clock."""

    model: ModelKey
    size_bytes: int
    last_used_s: float
    is_busy: bool = False
    is_pinned: bool = False
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class ResidencyPlan:
    """Unload these, in this order; then, if `is_enough` is False, wait until another one is idle."""

    unload: tuple[ModelKey, ...] = ()
    is_enough: bool = True


class DoesNotFit(errors.Misconfigured):
    """A model is larger than the whole budget of its device."""


def plan_residency(
    residents: Sequence[Resident], wanted: ModelKey, *, need_bytes: int, budget_bytes: int, device: str = "cpu"
) -> ResidencyPlan:
    """Say which idle models of *device* to unload so that *wanted* fits in *budget_bytes*, least recently used first.

    Never names a model in use or pinned, nor one more than needed.
    Raises DoesNotFit if even an empty device is too small.
    """
    if need_bytes > budget_bytes:
        message = (
            f"model {wanted!r} needs about {need_bytes / 2**20:.0f} MiB and {device} has "
            f"{budget_bytes / 2**20:.0f} MiB for models"
        )
        raise DoesNotFit(
            message, key=f"model:{wanted}", hint='free memory, choose a smaller model, or set dtype = "bfloat16"'
        )
    here = [resident for resident in residents if resident.device == device and resident.model != wanted]
    over = sum(resident.size_bytes for resident in here) + need_bytes - budget_bytes
    unload: list[ModelKey] = []
    for resident in sorted(here, key=lambda resident: (resident.last_used_s, resident.model)):
        if over <= 0:
            break
        if not resident.is_busy and not resident.is_pinned:
            unload.append(resident.model)
            over -= resident.size_bytes
    return ResidencyPlan(tuple(unload), is_enough=over <= 0)


def idle_too_long(residents: Sequence[Resident], *, now_s: float, keep_s: float) -> tuple[ModelKey, ...]:
    """Models that nobody used for *keep_s* seconds (0 keeps all); never one in use or pinned."""
    if keep_s <= 0:
        return ()
    return tuple(
        resident.model
        for resident in residents
        if not resident.is_busy and not resident.is_pinned and now_s - resident.last_used_s >= keep_s
    )
