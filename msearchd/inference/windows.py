"""Which waiting passages travel together, and what to do with them when their worker dies. Pure.

In: passages in order of arrival, what is in flight, what was answered. Out: windows (one request each), the next step
for the passages that were at work in a crash. Never drops a passage, never sends one twice at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

#: Windows in flight at a time: one computes, one is tokenised meanwhile. More would only be lost in a crash.
MAX_IN_FLIGHT = 2
#: Batches' worth of passages in one window: enough to sort by length, few enough that a crash repeats little.
BATCHES_PER_WINDOW = 16
#: Pixels and PCM of one window at most: two are in flight, and both sides hold a copy.
WINDOW_BYTES = 32 * 1024**2
#: Before the first window is answered, a second one goes only if it fills this many batches: until then nothing is won,
#: and what arrives meanwhile makes its batches better.
_FILL_BATCHES = 2


def may_send(waiting_cost: int, *, in_flight: int, batch_cost: int) -> bool:
    """True where the next window should go now. An idle worker gets whatever there is, at once."""
    if waiting_cost <= 0 or in_flight >= MAX_IN_FLIGHT:
        return False
    return in_flight == 0 or waiting_cost >= _FILL_BATCHES * batch_cost


def take_count(sizes: Iterable[tuple[int, int]], *, batch_cost: int) -> int:
    """How many of the first samples, each with its (cost, bytes), fill a window; at least one."""
    left, left_bytes = BATCHES_PER_WINDOW * batch_cost, WINDOW_BYTES
    count = 0
    for cost, size_bytes in sizes:
        if count and (cost > left or size_bytes > left_bytes):
            break
        left -= cost
        left_bytes -= size_bytes
        count += 1
    return count


def at_work(plan: Sequence[Sequence[int]], *, answered: Collection[int], size: int) -> tuple[int, ...]:
    """Indices of the batch that was computing when the worker died; all *size* where no plan had come (tokenising)."""
    if not plan:
        return tuple(range(size))
    done = set(answered)
    for batch in plan:
        if open_items := tuple(index for index in batch if index not in done):
            return open_items
    return ()


@dataclass(frozen=True, slots=True)
class AfterCrash:
    """What to do with the passages that were at work: send these groups again, each alone, or give the one up."""

    again: tuple[tuple[int, ...], ...] = ()
    is_poison: bool = False


def after_crash(suspects: Sequence[int], *, crashes: int, was_killed: bool) -> AfterCrash:
    """Say how *suspects* go on, which have met *crashes* crashes, this one included.

    The first crash may be anybody's: all go again, unless the kernel killed the worker for its memory (then halves do).
    After that halves, until one passage has killed its worker alone.
    """
    if len(suspects) == 1:
        return AfterCrash(is_poison=True) if crashes > 1 else AfterCrash(again=(tuple(suspects),))
    if crashes == 1 and not was_killed:
        return AfterCrash(again=(tuple(suspects),))
    middle = (len(suspects) + 1) // 2
    return AfterCrash(again=(tuple(suspects[:middle]), tuple(suspects[middle:])))
