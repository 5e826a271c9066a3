"""What the watch stage says of itself: status of the whole, and the verdict on one path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from msearchd.watch import paths
from msearchd.watch.disk import special_rule
from msearchd.watch.hints import SourceHealth
from msearchd.watch.scan import ScanJob
from msearchd.watch.status import RootStatus, Verdict, WatchStatus
from msearchd.watch.watched import WatchedRoot


def verdict(path: bytes, watched_roots: Iterable[WatchedRoot]) -> Verdict:
    """Whether *path* (absolute) is watched, or which rule leaves it out. Looks at the disk."""
    for watched in watched_roots:
        if not paths.is_below(path, watched.root.path):
            continue
        relative = path[len(watched.root.path) :].strip(b"/")
        rules = watched.context.rules
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            rule = rules.check_path(relative, is_dir=False)
        else:
            rule = rules.check_path(relative, is_dir=stat.S_ISDIR(mode)) or (special_rule(mode) if relative else None)
        if rule is None:
            return Verdict(watched.root, relative, is_excluded=False)
        return Verdict(watched.root, relative, is_excluded=True, rule=rule.pattern, rule_origin=rule.origin)
    return Verdict(None, path, is_excluded=True, rule="not in a watched folder", rule_origin="msearch list")


def status_of(
    watched_roots: Iterable[tuple[WatchedRoot, list[ScanJob]]],
    health: SourceHealth,
    *,
    last_event_ms: int,
    pending: int,
) -> WatchStatus:
    """The stage now. Each root comes with its scans, the one at work first."""
    rows = list(watched_roots)
    unreadable = sum(len(watched.unreadable) for watched, _ in rows)
    advice = health.advice or (f"{unreadable} folders cannot be read (permissions)" if unreadable else "")
    return WatchStatus(
        backend=health.backend,
        health="degraded" if health.state == "ok" and unreadable else health.state,
        advice=advice,
        roots=tuple(_root_status(watched, jobs) for watched, jobs in rows),
        dirs_watched=health.watched_dirs,
        dirs_unwatched=health.unwatched_dirs,
        watch_limit=health.watch_limit,
        overflows=health.overflows,
        restarts=health.restarts,
        last_event_ms=last_event_ms,
        pending=pending,
        complaints=tuple(line for watched, _ in rows for line in watched.context.rules.all_complaints()),
    )


def _root_status(watched: WatchedRoot, jobs: list[ScanJob]) -> RootStatus:
    job = jobs[0] if jobs else None
    return RootStatus(
        root=watched.root.id,
        path=watched.root.path,
        state=watched.state,
        reason=watched.reason,
        backend=watched.source.name if watched.source is not None else "",
        scan=job.kind if job else "",
        scan_dirs_done=job.dirs if job else 0,
        scan_dirs_waiting=len(job.stack) if job else 0,
        unreadable_dirs=len(watched.unreadable),
        last_scan_ms=watched.last_scan_ms,
    )
