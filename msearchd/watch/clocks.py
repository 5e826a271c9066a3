"""Notices that the machine slept, or that its clock was set: both make what was seen before doubtful.

In: two readings of the system's clocks. Out: what happened between them. Pure, but for `read`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Literal

#: Asleep for less than this nobody moves a disk to another machine and back.
_SLEEP_S: Final = 1.0
#: NTP slews by 0.05 % at most; a step is larger than this.
_STEP_S: Final = 2.0

Happening = Literal["", "resumed", "stepped"]


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds. `boot_s` counts while the machine sleeps, `monotonic_s` does not."""

    real_s: float
    monotonic_s: float
    boot_s: float


def read() -> Clocks:
    """The clocks now. Where the system has no CLOCK_BOOTTIME a sleep is seen as a step of the clock."""
    monotonic_s = time.monotonic()
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return Clocks(time.time(), monotonic_s, monotonic_s if boot is None else time.clock_gettime(boot))


def what_happened(before: Clocks, after: Clocks) -> Happening:
    """Between two readings: "resumed" from sleep, the clock was "stepped", or nothing of note."""
    slept_s = (after.boot_s - before.boot_s) - (after.monotonic_s - before.monotonic_s)
    if slept_s > _SLEEP_S:
        return "resumed"
    stepped_s = (after.real_s - before.real_s) - (after.boot_s - before.boot_s)
    return "stepped" if abs(stepped_s) > _STEP_S else ""
