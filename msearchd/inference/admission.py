"""Makes room before a model loads: asks the planner, unloads whom it names, and sees the memory come back.

In: a model that is to be loaded. Out: it may start, on a device that was chosen for it. Plans are made at once from values
and count from then on, the waiting comes after: there is no lock while a model loads or ends.
A question to a model that has no room pauses the bulk work of those in its way; indexing does not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.inference import residency
from msearchd.inference.devices import Look
from msearchd.inference.residency import HOST, ResidencyPlan, Resident, Seat
from msearchd.inference.resident import LoadedModel
from msearchd.settings.model import InferenceSettings

log = structlog.get_logger(__name__)

#: Part of the memory that is free without us which models may use; the rest is for activations and everybody else.
_MEMORY_SHARE: Final = 0.8
_DEVICE_SHARE: Final = 0.9
#: How long indexing waits for busy models to make room before it is told to come back.
_ROOM_WAIT_S: Final = 10.0
_ROOM_LOOK_S: Final = 0.05
#: The driver gives memory back within this time after a process has ended (Ollama's bound).
_MEMORY_BACK_S: Final = 5.0


class Admission:
    """One per pool. *loaded_models* lists all copies of all models; *look* finds accelerators."""

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        loaded_models: Callable[[], Iterable[LoadedModel]],
        budget_bytes: int | None,
        look: Look,
    ) -> None:
        self._settings = settings
        self._all = loaded_models
        self._host_bytes = budget_bytes or settings.memory_bytes
        self._look = look

    async def admit(self, loaded: LoadedModel) -> None:
        """Return once *loaded* may start. Raises DoesNotFit, or RetryLater where only busy models are left."""
        give_up_at = time.monotonic() + _ROOM_WAIT_S
        while not loaded.is_loaded:
            plan = self._plan(loaded)
            if plan.is_enough:
                loaded.is_admitted = True  # counts from here on: no await between plan and this
                if await self._unload(plan.unload, reason=f"{loaded.seat} needs its memory"):
                    return
                loaded.is_admitted = False  # somebody came while another one ended: the plan is void
                continue
            if loaded.questions:
                self._pause(plan.in_the_way)
            elif time.monotonic() > give_up_at:
                message = f"model {loaded.spec.key!r} waits for the memory of models at work"
                raise errors.RetryLater(message, after_s=1.0)
            await asyncio.sleep(_ROOM_LOOK_S)

    async def clear(self, loaded: LoadedModel) -> bool:
        """Unload every idle model but *loaded*; False where there was none."""
        idle = [
            one.seat for one in self._residents() if one.seat != loaded.seat and not one.is_busy and not one.is_pinned
        ]
        await self._unload(idle, reason=f"{loaded.seat} could not be loaded beside it")
        return bool(idle)

    async def unload_idle(self) -> None:
        """Unload what was unused for too long."""
        seats = residency.idle_too_long(self._residents(), now_s=time.monotonic())
        await self._unload(seats, reason="unused")

    def budgets(self) -> dict[str, int]:
        """Bytes that models may use together, by device, now."""
        ours: dict[str, int] = {}
        for one in self._residents():
            for device, size in one.bytes_on.items():
                ours[device] = ours.get(device, 0) + size
        budgets = {HOST: self._host_bytes or int(_MEMORY_SHARE * (free_bytes() + self._host_bytes_now()))}
        most = self._settings.device_memory_bytes
        for found in self._look():
            free = found.free_bytes + ours.get(found.name, 0)
            budgets[found.name] = min(most, found.total_bytes) if most else int(_DEVICE_SHARE * free)
        return budgets

    def free_for_copy(self, loaded: LoadedModel) -> tuple[str, ...]:
        """Accelerators that have none of *loaded*'s model, and room for it without unloading anybody."""
        taken = {one.device for one in self._all() if one.spec.key == loaded.spec.key and one.is_loaded}
        options = [device.name for device in self._look() if device.name not in taken]
        budgets, residents, wanted = self.budgets(), self._residents(), loaded.as_wanted()
        free = []
        for device in options:
            bytes_on = {HOST: wanted.bytes_on[HOST], device: loaded.predicted_device_bytes}
            copy = residency.Wanted(seat=Seat(f"{loaded.seat}#copy"), bytes_on=bytes_on)
            try:
                plan = residency.plan_residency(
                    residents, copy, budgets=budgets, now_s=time.monotonic(), max_models=self._settings.max_loaded
                )
            except residency.DoesNotFit:
                continue
            if plan.is_enough and not plan.unload:
                free.append(device)
        return tuple(free)

    def place_on(self, loaded: LoadedModel, device: str) -> None:
        """Let *loaded* start on the accelerator *device*, or on the CPU ("host")."""
        masks = {one.name: one.mask for one in self._look()}
        loaded.device, loaded.mask = device, masks.get(device, "" if masks else None)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _plan(self, loaded: LoadedModel) -> ResidencyPlan:
        budgets, residents, now_s = self.budgets(), self._residents(), time.monotonic()
        self._choose_device(loaded, budgets=budgets, residents=residents, now_s=now_s)
        return residency.plan_residency(
            residents, loaded.as_wanted(), budgets=budgets, now_s=now_s, max_models=self._settings.max_loaded
        )

    def _choose_device(
        self, loaded: LoadedModel, *, budgets: dict[str, int], residents: Sequence[Resident], now_s: float
    ) -> None:
        asked, found = loaded.model.device, self._look()
        if loaded.is_copy or not found or asked.partition(":")[0] not in {"auto", "cuda"}:
            return
        names = [one.name for one in found if asked in {"auto", "cuda", one.name}]
        host = residency.Wanted(seat=loaded.seat, bytes_on={HOST: loaded.bytes_on()[HOST]}, group=loaded.model.group)
        device = residency.choose_device(
            dict.fromkeys(names, loaded.predicted_device_bytes),
            residents,
            host,
            budgets=budgets,
            now_s=now_s,
            max_models=self._settings.max_loaded,
        )
        if device is not None:
            self.place_on(loaded, device)
        elif asked == "auto":
            self.place_on(loaded, HOST)
        else:  # too large for every one that was asked for: the planner says how much
            self.place_on(loaded, names[0] if names else asked)
        if asked not in {"auto", "cuda"}:
            loaded.mask = None  # asked for by number: the worker finds it itself

    async def _unload(self, seats: Iterable[Seat], *, reason: str) -> bool:
        """Unload *seats* one after the other; False where one of them is in use by then, and stays."""
        by_seat = {one.seat: one for one in self._all()}
        for seat in seats:
            one = by_seat[seat]
            if one.is_busy:
                return False
            log.info("model unloaded", model=seat, reason=reason)
            before, there = self._free_on(one.device), one.bytes_on().get(one.device, 0)
            device = one.device
            await one.unload()
            if device != HOST:
                await self._wait_memory_back(device, free_before=before, unloaded_bytes=there)
        return True

    async def _wait_memory_back(self, device: str, *, free_before: int, unloaded_bytes: int) -> None:
        give_up_at = time.monotonic() + _MEMORY_BACK_S
        while not residency.is_memory_back(
            free_before=free_before, free_now=self._free_on(device), unloaded_bytes=unloaded_bytes
        ):
            if time.monotonic() > give_up_at:
                log.warning("memory of an unloaded model is not back", device=device, expected=unloaded_bytes)
                return
            await asyncio.sleep(_ROOM_LOOK_S)

    def _free_on(self, device: str) -> int:
        return next((one.free_bytes for one in self._look() if one.name == device), 0)

    def _pause(self, seats: Iterable[Seat]) -> None:
        in_the_way = set(seats)
        for one in self._all():
            if one.seat in in_the_way and not one.questions:
                one.pause()

    def _residents(self) -> list[Resident]:
        return [one.as_resident() for one in self._all() if one.is_loaded]

    def _host_bytes_now(self) -> int:
        return sum(one.status().resident_bytes for one in self._all())


def free_bytes() -> int:
    """Memory that new processes can have without swapping (MemAvailable); all of it where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
