"""How fast files become searchable, and when the rest will be: pure arithmetic over counts and `now`."""

from __future__ import annotations

from collections import deque
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
