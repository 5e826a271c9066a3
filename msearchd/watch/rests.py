"""How long a path rests before it is looked at, by what was said of it and by how often it was handed out lately.

In: flags of hints, times of hand-outs. Out: seconds. Pure, under `now`; bounded memory, the oldest paths are forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from msearchd.domain.asset import RootId
from msearchd.watch import hints

_Key = tuple[RootId, bytes]
# Logs, databases, machine images: 5 s, doubled up to a minute (Baloo), indexed at least every 10 minutes (Syncthing's
# cap). The first repeat is free: saving a text twice is no offence.
_OFFENDER_BASE_S: Final = 5.0
_OFFENDER_TOP_S: Final = 60.0
_OFFENDER_CAP_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """Quiet time in seconds after the last hint, by what the hint said (measured in research, section 2)."""

    closed_s: float = 0.2
    created_s: float = 2.0
    modified_s: float = 1.0
    gone_s: float = 0.1
    cap_s: float = 30.0  # a file that never rests is taken as it is
    tree_s: float = 0.05  # a new directory: look soon, its files' own rest is checked when they are found
    burst_s: float = 1.0  # many names in one directory: one listing instead
    burst_cap_s: float = 10.0


class Rests:
    """Of one settler."""

    def __init__(self, delays: Delays, *, offender_memory_s: float, max_offenders: int) -> None:
        self._delays = delays
        self._memory_s = offender_memory_s
        self._max_paths = max_offenders
        #: Flags -> (rest, cap) of a path that did not offend.
        self._by_kind: dict[int, tuple[float, float]] = {}
        #: Path -> (time it was last handed out, times in a row), oldest first.
        self._handed_out: OrderedDict[_Key, tuple[float, int]] = OrderedDict()

    def of(self, key: _Key, flags: int, *, now: float) -> tuple[float, float]:
        """(rest after the last hint, cap after the first) in seconds, for a file of which *flags* were said."""
        times = self._by_kind.get(flags)
        if times is None:
            times = self._by_kind[flags] = (_rest_s(self._delays, flags), self._delays.cap_s)
        if key not in self._handed_out or _is_deletion(flags):
            return times  # a deletion is never put off by what the file did before
        at, streak = self._handed_out[key]
        if streak < 2 or now - at > self._memory_s:
            return times
        put_off_s = min(_OFFENDER_BASE_S * 2.0 ** (streak - 2), _OFFENDER_TOP_S)
        return max(times[0], put_off_s), max(times[1], _OFFENDER_CAP_S)

    def note(self, key: _Key, now: float) -> None:
        """It was handed out because it came to rest."""
        at, streak = self._handed_out.pop(key, (float("-inf"), 0))
        self._handed_out[key] = (now, streak + 1 if now - at <= self._memory_s else 1)
        while len(self._handed_out) > self._max_paths:
            self._handed_out.popitem(last=False)

    def undo(self, key: _Key) -> None:
        """The last time was in vain."""
        at, streak = self._handed_out.pop(key, (0.0, 0))
        if streak > 1:
            self._handed_out[key] = (at, streak - 1)

    def forget(self, root: RootId) -> None:
        """Drop all paths of *root*."""
        for key in [key for key in self._handed_out if key[0] == root]:
            del self._handed_out[key]


def _is_deletion(flags: int) -> bool:
    return bool(flags & hints.GONE) and not flags & (hints.CLOSED | hints.MOVED | hints.CREATED)


def _rest_s(delays: Delays, flags: int) -> float:
    if flags & hints.GONE and flags & hints.MOVED and flags & hints.DIR:
        return max(delays.closed_s, delays.tree_s)  # never before its new place, which rests for tree_s: it moved then
    if flags & (hints.CLOSED | hints.MOVED):
        return delays.closed_s
    if flags & hints.CREATED:
        return delays.created_s
    return delays.gone_s if flags & hints.GONE else delays.modified_s
