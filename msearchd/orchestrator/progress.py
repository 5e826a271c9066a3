"""How fast files become searchable, and when the rest will be: pure arithmetic over counts and `now`.

A step costs a millisecond or a minute, by its kind; so time left is told by kind, from what was measured of each while it
was at work, and not at all before enough of it was seen:

    lane   = sum over its kinds of  (waiting + what `identify` will still bring) / pace
    time   = the longest lane: they work side by side (models that do not fit together take turns: then their sum)
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: Rates are taken over this window: long enough to bridge one scanned book, short enough to follow a change of work.
WINDOW_S: Final = 60.0


@dataclass(slots=True)
class RateMeter:
    """Counts per second over the last WINDOW_S. Owned by one task."""

    _marks: deque[tuple[float, int]] = field(default_factory=deque)  # (when, how many)
    total: int = 0

    def add(self, count: int, *, now: float) -> None:
        """Note *count* more at *now* (monotonic seconds)."""
        self.total += count
        self._marks.append((now, count))
        self._forget(now)

    def per_s(self, *, now: float) -> float:
        """Rate over the window; 0.0 where nothing happened in it."""
        self._forget(now)
        if not self._marks:
            return 0.0
        # At least a second: a single file that just ended is not a thousand a second.
        span = min(WINDOW_S, max(1.0, now - self._marks[0][0]))
        return sum(count for _, count in self._marks) / span

    def _forget(self, now: float) -> None:
        while self._marks and self._marks[0][0] < now - WINDOW_S:
            self._marks.popleft()


def eta_s(pending: int, rate_per_s: float) -> float | None:
    """Seconds until *pending* are done; None while there is nothing to base it on, 0.0 if nothing is pending."""
    if pending == 0:
        return 0.0
    return pending / rate_per_s if rate_per_s > 0 else None


# -- by kind ------------------------------------------------------------------------------------------------------------

#: Step and target of a job: what costs about alike. The target of `embed` is a model, and with it a modality.
Kind = tuple[str, str]

IDENTIFY: Final[Kind] = ("identify", "")
#: Kinds that share a lane with `identify`.
_READ: Final = frozenset({"identify", "extract"})
#: A slice of work ends after so much time at work, or so many jobs; the last ones are kept.
_SLICE_S, _SLICE_JOBS, _SLICES = 5.0, 64, 24
#: A pace is told from so many slices on, or so many jobs in fewer (a group of embeddings ends at once), and as long as its
#: standard error is no more than this part of it.
_LEAST_SLICES: Final = 3
_MOST_ERROR: Final = 0.35


@dataclass(frozen=True, slots=True)
class Pace:
    """What was seen of a kind: slices (seconds at work, jobs ended in them), and all that ended in this life."""

    slices: tuple[tuple[float, int], ...] = ()
    ended: int = 0

    @property
    def jobs_per_s(self) -> float | None:
        """Jobs a second while it is at work; None while that is not known well enough."""
        busy_s, jobs = sum(busy for busy, _ in self.slices), sum(count for _, count in self.slices)
        if not jobs or busy_s <= 0 or (len(self.slices) < _LEAST_SLICES and jobs < _SLICE_JOBS):
            return None
        rate = jobs / busy_s
        if len(self.slices) == 1:
            return rate
        # Of a ratio of sums (Cochran, Sampling Techniques, 1977, section 6.4): slices differ in length.
        spread = sum((count - rate * busy) ** 2 for busy, count in self.slices) / (len(self.slices) - 1)
        error = math.sqrt(spread * len(self.slices)) / jobs
        return rate if error <= _MOST_ERROR else None


def time_left_s(
    waiting: Mapping[Kind, int], paces: Mapping[Kind, Pace], *, at_start: Mapping[Kind, int], takes_turns: bool = False
) -> float | None:
    """Seconds until nothing is *waiting* (ready or in work); 0.0 if nothing is; None where a pace is not known well enough.

    *at_start* waited already when *paces* began to be taken: the rest is what `identify` brought. *takes_turns*: models do
    not fit into memory together.
    """
    expected = _with_what_follows(waiting, paces, at_start)
    if expected is None:
        return None
    lanes: dict[str, float] = {}
    for (step, target), jobs in expected.items():
        if jobs <= 0:
            continue
        rate = paces.get((step, target), Pace()).jobs_per_s
        if rate is None:
            return None
        lane = "read" if step in _READ else step if takes_turns else f"{step}:{target}"
        lanes[lane] = lanes.get(lane, 0.0) + jobs / rate
    return max(lanes.values(), default=0.0)


def _with_what_follows(
    waiting: Mapping[Kind, int], paces: Mapping[Kind, Pace], at_start: Mapping[Kind, int]
) -> dict[Kind, float] | None:
    """Jobs by kind, with those that files not looked at yet will owe, as the files before them did; None if unknown."""
    unseen, seen = waiting.get(IDENTIFY, 0), paces.get(IDENTIFY, Pace()).ended
    if unseen and not seen:
        return None
    found: dict[Kind, float] = {}
    for kind in {*waiting, *paces}:
        jobs = waiting.get(kind, 0)
        came = paces.get(kind, Pace()).ended + jobs - at_start.get(kind, 0)
        follows = unseen * max(0, came) / seen if unseen and kind != IDENTIFY else 0.0
        found[kind] = jobs + follows
    return found


@dataclass(slots=True)
class _Measured:
    active: int = 0
    since_s: float = 0.0
    busy_s: float = 0.0  # of the slice that is not full yet
    jobs: int = 0
    ended: int = 0
    slices: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_SLICES))


class PaceMeter:
    """Measures paces. Owned by the runner; `now` is monotonic seconds. Several jobs of a kind at once are one time at work."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Measured] = {}

    def begin(self, kinds: Iterable[Kind], *, now: float) -> None:
        """These jobs begin."""
        for kind in kinds:
            one = self._kinds.setdefault(kind, _Measured())
            if not one.active:
                one.since_s = now
            one.active += 1

    def end(self, kinds: Iterable[Kind], *, now: float) -> None:
        """These jobs ended, however that was."""
        for kind, jobs in Counter(kinds).items():
            one = self._kinds[kind]
            one.active -= jobs
            one.busy_s += now - one.since_s
            one.since_s = now
            one.jobs += jobs
            one.ended += jobs
            if one.busy_s >= _SLICE_S or one.jobs >= _SLICE_JOBS:
                one.slices.append((one.busy_s, one.jobs))
                one.busy_s, one.jobs = 0.0, 0

    @property
    def active(self) -> dict[Kind, int]:
        """Jobs in work."""
        return {kind: one.active for kind, one in self._kinds.items() if one.active}

    def paces(self) -> dict[Kind, Pace]:
        """What is known now."""
        return {kind: Pace(tuple(one.slices), one.ended) for kind, one in self._kinds.items()}
