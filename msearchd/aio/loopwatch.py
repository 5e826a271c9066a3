"""How late the event loop is: a timer that measures when it is really called.

Out: percentiles of the last samples for status. Samples often while the process works and seldom while it sleeps, so
that an idle daemon is woken twice a minute.
"""

from __future__ import annotations

import asyncio
import collections
import time
from dataclasses import dataclass
from typing import Final

_BUSY_S: Final = 0.1
_IDLE_S: Final = 30.0
#: Below this share of a core since the last sample the process counts as idle.
_IDLE_SHARE: Final = 0.01
_SAMPLES: Final = 1024


@dataclass(frozen=True, slots=True)
class LoopLag:
    """Milliseconds by which timers came late, over the last samples."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    samples: int = 0


def next_interval_s(interval_s: float, *, cpu_share: float) -> float:
    """Seconds to the next sample: at once often when there is work, twice as long each time when there is none."""
    return _BUSY_S if cpu_share > _IDLE_SHARE else min(_IDLE_S, interval_s * 2)


def percentiles(lags_s: list[float]) -> LoopLag:
    """Nearest-rank percentiles of lags in seconds."""
    if not lags_s:
        return LoopLag()
    ordered = sorted(lags_s)
    last = len(ordered) - 1
    p50, p99 = ordered[round(last * 0.5)], ordered[round(last * 0.99)]
    return LoopLag(p50 * 1000, p99 * 1000, ordered[-1] * 1000, len(ordered))


class LoopWatch:
    """Started and stopped by its owner, on the loop that it watches."""

    def __init__(self) -> None:
        self._lags_s: collections.deque[float] = collections.deque(maxlen=_SAMPLES)
        self._timer: asyncio.TimerHandle | None = None
        self._interval_s = _BUSY_S
        self._cpu_s = 0.0

    def start(self) -> None:
        """Begin to sample."""
        self._cpu_s = time.process_time()
        self._aim()

    def stop(self) -> None:
        """End it; samples stay."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def snapshot(self) -> LoopLag:
        """Percentiles of the last samples (about 100 seconds of work)."""
        return percentiles(list(self._lags_s))

    def _aim(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + self._interval_s, self._sample, loop.time() + self._interval_s)

    def _sample(self, due: float) -> None:
        self._lags_s.append(max(0.0, asyncio.get_running_loop().time() - due))
        cpu_s = time.process_time()
        share = (cpu_s - self._cpu_s) / self._interval_s
        self._cpu_s = cpu_s
        self._interval_s = next_interval_s(self._interval_s, cpu_share=share)
        self._aim()
