"""What the watch stage says of itself: frozen values for status, explain and health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msearchd.domain.asset import Root, RootId, RootState

Health = Literal["ok", "degraded", "down"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a path is watched. `rule` and `rule_origin` name what leaves it out; empty if nothing does."""

    root: Root | None
    relative: bytes
    is_excluded: bool
    rule: str = ""
    rule_origin: str = ""


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """What one scan looked at and found."""

    root: RootId
    path: bytes
    dirs: int = 0
    files: int = 0
    changes: int = 0  # handed to the sink, without the directory stamps
    vanished: int = 0
    took_s: float = 0.0
    #: Why its losses were not believed; empty if they were, or there were none.
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One root now."""

    root: RootId
    path: bytes
    state: RootState
    reason: str
    backend: str
    #: "" or what is running: "start", "repair", "live", "verify"; with directories done and still to do as known now.
    scan: str
    scan_dirs_done: int
    scan_dirs_waiting: int
    unreadable_dirs: int
    last_scan_ms: int  # end of the last whole scan; 0: none yet


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """The stage now. `advice`: what a person can do to make health "ok"."""

    backend: str
    health: Health
    advice: str
    roots: tuple[RootStatus, ...]
    dirs_watched: int
    dirs_unwatched: int
    watch_limit: int
    overflows: int
    restarts: int
    last_event_ms: int
    pending: int  # places that wait to come to rest
    complaints: tuple[str, ...] = ()  # lines of ignore files that are no patterns
    #: What last made a comparison of everything necessary (lost events, sleep, a set clock), and when (UTC).
    last_doubt: str = ""
    last_doubt_ms: int = 0
