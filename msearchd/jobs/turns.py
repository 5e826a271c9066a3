"""Whose turn it is among the priorities. Pure: in how many jobs a lane has claimed, out the places kept for others.

The best priority goes first, but nothing starves: of every 16 jobs that a lane claims, two are the oldest of the
back-fill and one each the oldest of the normal and of the live ones, whatever waits before them.
"""

from __future__ import annotations

from typing import Final

from msearchd.domain.job import Priority

_ROUND: Final = 16
#: 1 of 8 for the back-fill: guess that research kept, a first scan of a busy folder goes on at an eighth of the speed.
_KEPT: Final = {7: Priority.BACKFILL, 15: Priority.BACKFILL, 3: Priority.LIVE, 11: Priority.NORMAL}


def kept_places(claimed: int, limit: int) -> dict[Priority, int]:
    """Places kept for each priority among the next *limit* claims of a lane that has claimed *claimed* jobs so far."""
    kept: dict[Priority, int] = {}
    for place in range(claimed, claimed + limit):
        priority = _KEPT.get(place % _ROUND)
        if priority is not None:
            kept[priority] = kept.get(priority, 0) + 1
    return kept
