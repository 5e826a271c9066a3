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
#: Before the first window is answered, a second one goes only if it fills this many batches: until then nothing is won,
#: and what arrives meanwhile makes its batches better.
_FILL_BATCHES = 2


def cost_tokens(text_bytes: int) -> int:
    """Rough number of tokens of a text with that many bytes of UTF-8; only for how much goes into a window."""
    return 8 + text_bytes // 4


def may_send(waiting_tokens: int, *, in_flight: int, batch_tokens: int) -> bool:
    """True where the next window should go now. An idle worker gets whatever there is, at once."""
    if waiting_tokens <= 0 or in_flight >= MAX_IN_FLIGHT:
        return False
    return in_flight == 0 or waiting_tokens >= _FILL_BATCHES * batch_tokens


def take_count(costs: Iterable[int], *, batch_tokens: int) -> int:
    """How many of the first passages fill a window; at least one."""
    left = BATCHES_PER_WINDOW * batch_tokens
    count = 0
    for cost in costs:
        if count and cost > left:
            break
        left -= cost
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
