"""Waiting times between attempts, as pure functions."""

from __future__ import annotations

import random


def delay_s(attempt: int, *, base_s: float = 1.0, cap_s: float = 300.0, spread: random.Random | None = None) -> float:
    """Seconds to wait after failed attempt number *attempt* (from 1): base * 2^(attempt-1), capped, times 0.5 to 1.5.

    The spread keeps a thousand files that failed together from returning together.
    """
    raw = min(cap_s, base_s * 2.0 ** min(attempt - 1, 60))
    return raw * (spread or _SPREAD).uniform(0.5, 1.5)


_SPREAD = random.Random()  # noqa: S311 - jitter, not a secret
