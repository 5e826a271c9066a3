"""The watch service: sources → settler → resolver and scanner → ChangeSink.

One task does one unit of work at a time (a batch of settled hints, or one slice of a scan): compare and apply are one
step, so no two comparisons of the same folder ever cross. Hints go before scans; a scan of a million files delays a
save by one slice. What a unit could not finish (disk full, store of changes busy) is asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import Root, RootId, RootState
from msearchd.settings import WatchSettings
from msearchd.watch import hints, paths, roots
from msearchd.watch.changes import RootWent
from msearchd.watch.comparer import Comparer
from msearchd.watch.disk import RootContext, RootIdentity, RootUnreadable, open_root, special_rule
from msearchd.watch.hints import Hint, NoCoverage, WatchSource
from msearchd.watch.ignore import Rules
from msearchd.watch.lane import DiskLane
from msearchd.watch.ports import ChangeSink, KnownTree
from msearchd.watch.resolver import Resolved, Resolver
from msearchd.watch.scan import ScanJob, ScanKind, Scanner, vanished_as_hints
from msearchd.watch.settler import Delays, Settled, Settler
from msearchd.watch.sources.choice import Sources
from msearchd.watch.status import RootStatus, ScanSummary, Verdict, WatchStatus
from msearchd.watch.watched import Ticket, WatchedRoot

log = structlog.get_logger(__name__)

#: How often roots are tended: offline ones tried, online ones looked at. One lstat each.
_TEND_EVERY_S: Final = 3.0
#: A root whose losses are in doubt is scanned again after this, doubled up to an hour; at once if it was remounted.
_DOUBT_RETRY_S: Final = 60.0
_RETRY_UNREADABLE_S: Final = 60.0
#: For a look at the root itself: a share that needs longer is as good as gone.
_PROBE_DEADLINE_S: Final = 10.0
_SYNC_ROUNDS: Final = 8
_KIND_ORDER: Final[dict[ScanKind, int]] = {"live": 0, "stamps": 1, "quick": 2, "repair": 3, "start": 4, "verify": 5}


class Watcher:
    """See the module. Made, given roots, then run by the daemon's supervisor."""

    def __init__(self, settings: WatchSettings, known: KnownTree, sink: ChangeSink, *, state_dir: Path) -> None:
        Rules(b"/", settings)  # bad patterns are told now. Raises Misconfigured
        self._settings = settings
        self._known = known
        self._sink = sink
        self._state_dir = state_dir
        self._sources = Sources(settings.backend, state_dir=state_dir, notify=self._wake_up)
        self._settler = Settler(
            Delays(
                closed_s=settings.settle_closed_s,
                created_s=settings.settle_created_s,
                modified_s=settings.settle_modified_s,
                gone_s=settings.settle_gone_s,
                cap_s=settings.settle_cap_s,
            )
        )
        self._lane = DiskLane()
        comparer = Comparer(known, self._settler, fresh_s=settings.settle_modified_s, now=time.monotonic)
        self._resolver = Resolver(known, comparer, self._lane.run)
        self._scanner = Scanner(known, sink, comparer, self._lane.run)
        self._roots: dict[RootId, WatchedRoot] = {}
        self._jobs: list[ScanJob] = []
        self._tickets: list[Ticket] = []
        self._wake = asyncio.Event()
        self._last_event_ms = 0
        self._tend_at = 0.0
        self._verify_pause_until = 0.0

    # -- public --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until cancelled. Raises only Bug; every other trouble is a state that `snapshot` tells."""
        try:
            while True:
                try:
                    await self._one_round()
                except errors.RetryLater as trouble:
                    log.warning("watching waits", reason=trouble.sentence(), after_s=trouble.after_s)
                    await asyncio.sleep(max(0.1, min(trouble.after_s, 30.0)))
                except errors.Bug:
                    raise
                except errors.MsearchError as trouble:
                    log.exception("watching waits", reason=trouble.sentence())
                    await asyncio.sleep(5.0)
        except Exception as error:
            if isinstance(error, errors.Bug):
                raise
            message = f"the watcher failed: {type(error).__name__}: {error}"
            raise errors.Bug(message) from error
        finally:
            await self._sources.close()
            self._lane.close()

    async def add_root(self, root: Root) -> None:
        """Watch *root* from now on; it is opened and scanned as soon as the service runs.

        A root that cannot be read is no error: it is offline until it can. Raises BadRequest where it lies in another
        root or holds one: its files would be indexed twice.
        """
        if not root.path.startswith(b"/"):
            message = f"{os.fsdecode(root.path)} is not an absolute path"
            raise errors.BadRequest(message)
        for other in self._roots.values():
            if other.root.id == root.id:
                return
            if paths.is_below(root.path, other.root.path) or paths.is_below(other.root.path, root.path):
                message = f"{os.fsdecode(root.path)} and the watched folder {os.fsdecode(other.root.path)} overlap"
                raise errors.BadRequest(message, hint="remove the watched folder first, or leave it as it is")
        rules = Rules(root.path, self._settings, private=os.fsencode(self._state_dir.resolve()))
        context = RootContext(root, rules, NoCoverage(), self._settings.max_file_bytes)
        self._roots[root.id] = WatchedRoot(root, context, state=root.state, reason=root.reason)
        self._tend_soon()

    async def remove_root(self, root_id: RootId) -> None:
        """Stop watching a root; what is known of it is its owner's business. Unknown ones are no error."""
        watched = self._roots.pop(root_id, None)
        if watched is None:
            return
        self._settler.forget(root_id)
        self._drop_jobs(root_id, "its folder is no longer watched")
        if watched.source is not None:
            await watched.source.remove_root(root_id)
        self._wake_up()

    async def sync(self, *, deadline_s: float) -> None:
        """Return when every file operation that ended before the call has been handed to the sink.

        Rest times are skipped; files with unfinished names are not waited for; roots that are offline are left out.
        Raises RetryLater when that takes longer than *deadline_s*; nothing is lost then.
        """
        ticket = Ticket(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(deadline_s):
                for source in self._sources.all():
                    if not await source.barrier(deadline_s=deadline_s):
                        ticket.scan_roots |= {r.root.id for r in self._roots.values() if r.source is source}
                self._tickets.append(ticket)
                self._tend_soon()  # a folder that went or is back by now counts too
                await ticket.done
        except TimeoutError as error:
            message = f"not in step after {deadline_s:g} s: {self._progress()}"
            raise errors.RetryLater(message, hint="ask again, or wait longer") from error
        finally:
            if ticket in self._tickets:
                self._tickets.remove(ticket)

    def request_scan(self, root_id: RootId, path: bytes = b"") -> None:
        """Compare a tree as soon as there is time. Raises NotFound for an unknown root."""
        self._queue_scan(self._root(root_id), path, kind="repair")

    async def scan_now(self, root_id: RootId, path: bytes = b"", *, accept_losses: bool = False) -> ScanSummary:
        """Compare a tree and return when that is done.

        With *accept_losses* even a loss that would put the root offline is believed: a person said so.
        Raises NotFound for an unknown root, RetryLater where the root cannot be read now.
        """
        watched = self._root(root_id)
        job = self._queue_scan(watched, path, kind="repair", is_fresh=True)
        watched.accepts_losses = watched.accepts_losses or accept_losses
        watched.retry_at = 0.0
        self._tend_soon()
        return await asyncio.shield(job.done)

    def verdict(self, path: bytes) -> Verdict:
        """Whether *path* (absolute) is watched, or which rule leaves it out. Looks at the disk: best from a thread."""
        for watched in list(self._roots.values()):
            if not paths.is_below(path, watched.root.path):
                continue
            relative = path[len(watched.root.path) :].strip(b"/")
            try:
                status = os.lstat(path)
            except OSError:
                rule = watched.context.rules.check_path(relative, is_dir=False)
            else:
                is_dir = status.st_mode & 0o170000 == 0o040000
                rule = watched.context.rules.check_path(relative, is_dir=is_dir) or special_rule(status.st_mode)
            if rule is None:
                return Verdict(watched.root, relative, is_excluded=False)
            return Verdict(watched.root, relative, is_excluded=True, rule=rule.pattern, rule_origin=rule.origin)
        return Verdict(None, path, is_excluded=True, rule="not in a watched folder", rule_origin="msearch list")

    def snapshot(self) -> WatchStatus:
        """How the stage stands."""
        health = self._sources.health()
        unreadable = sum(len(r.unreadable) for r in self._roots.values())
        advice = health.advice or (f"{unreadable} folders cannot be read (permissions)" if unreadable else "")
        state = health.state if health.state != "ok" or not unreadable else "degraded"
        return WatchStatus(
            backend=health.backend,
            health=state,
            advice=advice,
            roots=tuple(self._root_status(r) for r in self._roots.values()),
            dirs_watched=health.watched_dirs,
            dirs_unwatched=health.unwatched_dirs,
            watch_limit=health.watch_limit,
            overflows=health.overflows,
            restarts=health.restarts,
            last_event_ms=self._last_event_ms,
            pending=len(self._settler),
            complaints=tuple(c for r in self._roots.values() for c in r.context.rules.all_complaints()),
        )

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _one_round(self) -> None:
        self._wake.clear()
        self._take_hints()
        now = time.monotonic()
        if now >= self._tend_at:
            await self._tend_roots(now)
        if self._tickets and await self._serve_tickets():
            return
        settled = self._settler.due(now=time.monotonic())
        if settled:
            await self._resolve(settled)
            return
        job = self._next_job(now)
        if job is not None:
            await self._step(job)
            return
        await self._sleep()

    def _take_hints(self) -> None:
        now = time.monotonic()
        for source in self._sources.all():
            for hint in source.hints():
                if not hint.flags & hints.LOST:
                    self._last_event_ms = time.time_ns() // 1_000_000
                self._settler.observe(hint, now=now)

    async def _sleep(self) -> None:
        now = time.monotonic()
        until = min(self._settler.next_due() or self._tend_at, self._tend_at)
        if self._jobs:
            until = min(until, self._verify_pause_until)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - now)):
                await self._wake.wait()

    def _wake_up(self) -> None:
        self._wake.set()

    def _tend_soon(self) -> None:
        self._tend_at = 0.0
        self._wake.set()

    async def _resolve(self, settled: Sequence[Settled]) -> None:
        """One batch of settled hints, applied. On failure they wait again."""
        contexts = {r.root.id: r.context for r in self._roots.values() if r.is_open}
        try:
            out = await self._resolver.resolve(settled, contexts)
            if out.changes:
                await self._sink.apply(out.changes)
        except errors.RetryLater:
            self._observe_again(settled)
            raise
        except asyncio.CancelledError:
            self._observe_again(settled)
            raise
        self._leave(out)
        await self._note(out)
        for rescan in out.rescans:
            watched = self._roots.get(rescan.root)
            if watched is not None and watched.is_open:
                kind: ScanKind = "live" if rescan.is_live else "repair"
                self._queue_scan(watched, rescan.path, kind=kind, folders=rescan.folders)

    def _observe_again(self, settled: Sequence[Settled]) -> None:
        now = time.monotonic()
        for one in settled:
            self._settler.put_back(one, now=now)

    def _leave(self, out: Resolved) -> None:
        for root, path in out.left:
            if path and (watched := self._roots.get(root)) is not None:
                watched.context.coverage.leave(root, path)

    async def _note(self, out: Resolved) -> None:
        for root, path in out.moved_from:
            self._settler.observe(Hint(root, path, is_recursive=True, flags=hints.DIR), now=time.monotonic())
        for root, path in out.readable:
            if (watched := self._roots.get(root)) is not None:
                watched.unreadable.pop(path, None)
        for (root, path), reason in out.unreadable.items():
            if (watched := self._roots.get(root)) is not None and len(watched.unreadable) < 10_000:
                watched.unreadable[path] = reason
        for root, reason in out.trouble.items():
            if (watched := self._roots.get(root)) is not None:
                await self._take_offline(watched, reason)

    # -- scans ---------------------------------------------------------------------------------------------------------

    def _queue_scan(
        self, watched: WatchedRoot, path: bytes, *, kind: ScanKind, folders: tuple[bytes, ...] = (),
        is_fresh: bool = False,
    ) -> ScanJob:  # fmt: skip
        folders = folders or (path,)
        for waiting in self._jobs:  # one that has not begun will see the same
            if waiting.root != watched.root.id or waiting.has_begun or is_fresh:
                continue
            if (waiting.is_whole_root and kind != "quick") or (waiting.folders == folders and waiting.kind == kind):
                return waiting
            if waiting.kind == kind == "live":  # a burst of new folders is one walk
                waiting.add(folders)
                return waiting
        job = ScanJob(watched.context, path=path, folders=folders, kind=kind)
        self._jobs.append(job)
        self._wake_up()
        return job

    def _next_job(self, now: float) -> ScanJob | None:
        jobs = [job for job in self._jobs if self._roots[job.root].is_open]
        if not jobs:
            return None
        job = min(jobs, key=lambda job: (_KIND_ORDER[job.kind], not job.has_begun))
        return None if self._is_in_background(job) and now < self._verify_pause_until else job

    def _is_in_background(self, job: ScanJob) -> bool:
        """True for whole scans that nobody waits for: one third of a core at most. The first one is waited for."""
        return not job.is_forced and (job.kind == "verify" or (job.kind == "start" and job.known_files > 0))

    async def _step(self, job: ScanJob) -> None:
        out = Resolved()
        began = time.monotonic()
        try:
            is_over = await self._scanner.step(job, out)
        except RootUnreadable as trouble:
            await self._take_offline(self._roots[job.root], trouble.reason)
            return
        except errors.RetryLater:
            job.restart()
            raise
        for root, path in out.left:  # it went while we walked: look at its name
            if path:
                self._settler.observe(Hint(root, path, flags=hints.GONE | hints.DIR), now=time.monotonic())
        await self._note(out)
        if self._is_in_background(job):
            self._verify_pause_until = time.monotonic() + 2 * (time.monotonic() - began)
        if is_over:
            await self._finish(job)

    async def _finish(self, job: ScanJob) -> None:
        """Judge what the walk missed; then it is gone, or the root is in doubt."""
        watched = self._roots[job.root]
        doubt = await self._doubt(watched, job)
        if not doubt:
            missing = vanished_as_hints(job, now=time.monotonic())
            for start in range(0, len(missing), 1000):
                await self._resolve(missing[start : start + 1000])
        if job not in self._jobs:
            return  # the root went offline meanwhile
        self._jobs.remove(job)
        if job.changed_dirs:
            self._queue_scan(watched, b"", kind="quick", folders=tuple(dict.fromkeys(job.changed_dirs)))
        if not doubt and job.vanished.dropped:  # more than memory was given for: another walk finds the rest
            again = self._queue_scan(watched, job.path, kind="repair", folders=job.folders, is_fresh=True)
            again.accepts_losses = True
        summary = job.summary(doubt=doubt)
        if doubt:
            watched.doubted, watched.doubts = watched.context.identity, watched.doubts + 1
            await self._take_offline(watched, doubt)
        if not job.done.done():
            job.done.set_result(summary)
        if job.is_whole_root and not doubt:
            await self._whole_root_done(watched, summary)

    async def _doubt(self, watched: WatchedRoot, job: ScanJob) -> str:
        if (
            job.accepts_losses
            or watched.accepts_losses
            or job.kind == "live"
            or not (job.vanished.files or job.vanished.dirs)
        ):
            return ""
        lost = len(job.vanished.files) + job.vanished.dropped
        for path in job.vanished.dirs:
            lost += await self._known.count_files(job.root, path)
        losses = roots.Losses(job.known_files, lost, job.is_root_empty, is_vouched=watched.is_vouched)
        return roots.doubt(losses, brake_percent=self._settings.vanish_brake_percent)

    async def _whole_root_done(self, watched: WatchedRoot, summary: ScanSummary) -> None:
        watched.last_scan_ms = time.time_ns() // 1_000_000
        watched.is_vouched = not watched.is_network
        watched.doubted, watched.doubts, watched.accepts_losses = None, 0, False
        hours = self._settings.rescan_interval_h
        # Spread by a quarter: ten roots added together do not scan together for ever.
        watched.verify_at = (
            time.monotonic() + hours * 3600 * random.uniform(0.75, 1.25) if hours else float("inf")  # noqa: S311
        )
        if watched.source is not None:
            watched.source.scanned(watched.root.id, took_s=summary.took_s)
        tell = log.info if summary.changes else log.debug
        tell(
            "scanned",
            root=watched.root.id,
            dirs=summary.dirs,
            files=summary.files,
            changes=summary.changes,
            took_s=round(summary.took_s, 2),
        )
        await self._tell_online(watched)

    async def _tell_online(self, watched: WatchedRoot) -> None:
        """Say that a root is back, once all of it was compared; asked again until the sink has taken it."""
        if watched.state is RootState.ONLINE or not watched.last_scan_ms:
            return
        await self._sink.apply([RootWent(watched.root.id, RootState.ONLINE, "")])
        watched.state, watched.reason = RootState.ONLINE, ""
        log.info("folder is back", root=watched.root.id)

    def _drop_jobs(self, root: RootId, reason: str) -> None:
        for job in [job for job in self._jobs if job.root == root]:
            self._jobs.remove(job)
            if not job.done.done():
                job.done.set_exception(errors.RetryLater(f"the scan was given up: {reason}", after_s=10))
                job.done.exception()  # retrieved: nobody may be waiting

    # -- roots ---------------------------------------------------------------------------------------------------------

    async def _tend_roots(self, now: float) -> None:
        """Open what can be opened, notice what went, ask for the scans that are due."""
        for watched in list(self._roots.values()):
            if not watched.is_open:
                await self._try_open(watched, now)
            elif not await self._is_still_there(watched):
                continue
            if watched.is_open:
                await self._tell_online(watched)
            if watched.is_open and now >= watched.verify_at:
                watched.verify_at = float("inf")
                self._queue_scan(watched, b"", kind="verify")
            if watched.is_open and watched.unreadable and now >= watched.retry_unreadable_at:
                watched.retry_unreadable_at = now + _RETRY_UNREADABLE_S
                for path in list(watched.unreadable):
                    self._settler.observe(Hint(watched.root.id, path, flags=hints.ATTRIB | hints.DIR), now=now)
        self._tend_at = time.monotonic() + _TEND_EVERY_S

    async def _try_open(self, watched: WatchedRoot, now: float) -> None:
        if self._lane.is_stuck(watched.root.id) or (now < watched.retry_at and watched.doubted is None):
            return
        watched.context.identity = None
        try:
            identity, fs_type = await self._lane.run(
                watched.context, lambda: _probe(watched.root.path), deadline_s=_PROBE_DEADLINE_S
            )
        except RootUnreadable as trouble:
            watched.doubted = None
            await self._take_offline(watched, trouble.reason)
            return
        if identity == watched.doubted and now < watched.retry_at:
            return
        watched.is_network = roots.is_network(fs_type)
        source: WatchSource = self._sources.for_root(is_network=watched.is_network)
        watched.source, watched.context.coverage = source, source.coverage
        try:
            await source.add_root(watched.root)
        except (errors.RetryLater, errors.Misconfigured) as trouble:
            log.warning("cannot watch, looking by the clock", root=watched.root.id, reason=trouble.sentence())
            watched.source = self._sources.polling()
            watched.context.coverage = watched.source.coverage
            await watched.source.add_root(watched.root)
        watched.is_open = True
        watched.is_vouched = False
        watched.verify_at = float("inf")
        self._queue_scan(watched, b"", kind="stamps")
        self._queue_scan(watched, b"", kind="start")

    async def _is_still_there(self, watched: WatchedRoot) -> bool:
        try:
            await self._lane.run(
                watched.context, lambda: _check_identity(watched.context), deadline_s=_PROBE_DEADLINE_S
            )
        except RootUnreadable as trouble:
            await self._take_offline(watched, trouble.reason)
            return False
        return True

    async def _take_offline(self, watched: WatchedRoot, reason: str) -> None:
        """Delete nothing, forget what was pending: it is compared as a whole when it is back."""
        root = watched.root.id
        was_open, watched.is_open, watched.last_scan_ms = watched.is_open, False, 0
        # A missing folder is looked for often and cheaply; a doubted one costs a scan each time.
        pause = min(_DOUBT_RETRY_S * 2.0 ** min(watched.doubts, 6), 3600.0) if watched.doubted else 0.0
        watched.retry_at = time.monotonic() + pause
        self._settler.forget(root)
        self._drop_jobs(root, reason)
        watched.unreadable.clear()
        if was_open and watched.source is not None:
            await watched.source.remove_root(root)
        if watched.state is RootState.OFFLINE and watched.reason == reason:
            return
        log.warning("folder is offline, nothing is deleted", root=root, reason=reason)
        await self._sink.apply([RootWent(root, RootState.OFFLINE, reason)])  # refused: the next look says it again
        watched.state, watched.reason = RootState.OFFLINE, reason

    # -- sync ----------------------------------------------------------------------------------------------------------

    async def _serve_tickets(self) -> bool:
        """One step of what waiting `sync` calls need; False if there was nothing to do but other work."""
        for ticket in self._tickets:
            if not ticket.has_begun:
                ticket.has_begun = True
                for root in ticket.scan_roots:
                    if (watched := self._roots.get(root)) is not None and watched.is_open:
                        self._queue_scan(watched, b"", kind="repair")
        settled = self._settler.flush()
        if settled:
            await self._resolve(settled)
        needed = [job for job in self._jobs if job.kind != "verify" and self._roots[job.root].is_open]
        for ticket in list(self._tickets):
            ticket.rounds += 1 if settled else 0
            ticket.take(needed)
            is_quiet = not settled or ticket.rounds > _SYNC_ROUNDS
            if is_quiet and ticket.is_served():
                self._tickets.remove(ticket)
                if not ticket.done.done():
                    ticket.done.set_result(None)
        for job in needed:
            job.is_forced = True
        return bool(settled)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _root(self, root_id: RootId) -> WatchedRoot:
        watched = self._roots.get(root_id)
        if watched is None:
            message = f"there is no watched folder {root_id}"
            raise errors.NotFound(message)
        return watched

    def _progress(self) -> str:
        jobs = ", ".join(f"{job.kind} scan, {job.dirs} folders done" for job in self._jobs) or "no scan"
        return f"{len(self._settler)} places pending, {jobs}"

    def _root_status(self, watched: WatchedRoot) -> RootStatus:
        jobs = sorted((j for j in self._jobs if j.root == watched.root.id), key=lambda j: not j.has_begun)
        return RootStatus(
            root=watched.root.id,
            path=watched.root.path,
            state=watched.state,
            reason=watched.reason,
            backend=watched.source.name if watched.source is not None else "",
            scan=jobs[0].kind if jobs else "",
            scan_dirs_done=jobs[0].dirs if jobs else 0,
            scan_dirs_waiting=len(jobs[0].stack) if jobs else 0,
            unreadable_dirs=len(watched.unreadable),
            last_scan_ms=watched.last_scan_ms,
        )


def _probe(path: bytes) -> tuple[RootIdentity, str]:
    fd, identity = open_root(path)
    os.close(fd)
    return identity, roots.file_system_type(path)


def _check_identity(context: RootContext) -> None:
    fd, identity = open_root(context.root.path)
    os.close(fd)
    if context.identity is not None and identity != context.identity:
        raise RootUnreadable("another folder stands in its place (unmounted, or replaced)")
