"""Dates and durations as people write and read them. Pure under `now`."""

from __future__ import annotations

import datetime as dt
import re

_UNITS_S = {"min": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "m": 30 * 86400, "y": 365 * 86400}


def date_ms(text: str, *, now: dt.datetime) -> int:
    """Milliseconds UTC of `2024-05-01`, `2024-05-01T10:30`, `2024-05`, `2024`, `today`, `yesterday`, `7d`, `2w`.

    A date without a zone is of *now*'s zone; `7d` is that long ago (min h d w m y). Raises ValueError: what to write.
    """
    word = text.strip().lower()
    if match := re.fullmatch(r"(\d+)\s*(min|h|d|w|m|y)", word):
        return int((now.timestamp() - int(match[1]) * _UNITS_S[match[2]]) * 1000)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if word in {"today", "yesterday"}:
        return int((midnight - dt.timedelta(days=word == "yesterday")).timestamp() * 1000)
    padded = text.strip() + {4: "-01-01", 7: "-01"}.get(len(text.strip()), "")
    try:
        found = dt.datetime.fromisoformat(padded)
        stamp = (found if found.tzinfo else found.replace(tzinfo=now.tzinfo)).timestamp()
    except (ValueError, OverflowError) as error:
        message = f"{text!r} is no date: write 2024-05-01, 2024-05-01T10:30, today, yesterday, or 7d, 2w, 3h for ago"
        raise ValueError(message) from error
    return int(stamp * 1000)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`."""
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60
    if days:
        return f"{days} day{'s' if days > 1 else ''}" + (f" {hours} h" if hours else "")
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    if minutes:
        return f"{minutes} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole} s"


def moment(milliseconds: int) -> str:
    """Seconds of a media file as `1:05` or `1:02:03`."""
    whole = milliseconds // 1000
    clock = f"{whole // 60 % 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}" if whole >= 3600 else clock


def local_time(milliseconds: int) -> str:
    """`2024-05-01 10:30` in the zone of this machine."""
    return dt.datetime.fromtimestamp(milliseconds / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Bytes as `512 B`, `1.4 MB`, `23 GB` (powers of ten)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
