"""What the watch stage says of itself: status of the whole, and the verdict on one path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from msearchd.watch import paths
from msearchd.watch.hints import SourceHealth
from msearchd.watch.left import special_rule
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
    last_doubt: tuple[int, str] = (0, ""),
) -> WatchStatus:
    """The stage now. Each root comes with its scans, the one at work first."""
    rows = list(watched_roots)
    unreadable = sum(len(_unread(watched)) for watched, _ in rows)
    advice = health.advice or _unreadable_advice([watched for watched, _ in rows])
    doubt_ms, doubt = max(health.last_loss, last_doubt)
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
        last_doubt=doubt,
        last_doubt_ms=doubt_ms,
    )


def _unreadable_advice(watched_roots: list[WatchedRoot]) -> str:
    """The first folder that cannot be read with its reason, and how many more there are; "" if all can."""
    places = [(watched, path, reason) for watched in watched_roots for path, reason in _unread(watched).items()]
    if not places:
        return ""
    # Disks that are away first: a thousand folders without permission must not hide one.
    watched, path, reason = min(places, key=lambda place: (not place[0].context.mounts.is_away(place[1]), place[1]))
    full = os.fsdecode(paths.join(watched.root.path, path))
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{full} cannot be read ({reason}){more}: what is known of it is kept"


def _unread(watched: WatchedRoot) -> dict[bytes, str]:
    """Folders of a root whose content is kept as known -> why."""
    return {**watched.unreadable, **watched.context.mounts.away} if watched.is_open else {}


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
        unreadable_dirs=len(_unread(watched)),
        last_scan_ms=watched.last_scan_ms,
    )
