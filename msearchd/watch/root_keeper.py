"""Opens roots, notices those that went, judges what scans miss, and says so to the sink.

In: the watched roots, the outcome of whole scans. Out: RootWent changes, scans asked for. A root that cannot be read, or
whose losses are in doubt, is closed: its source lets go of it, what was pending is forgotten, nothing is deleted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import RootId, RootState
from msearchd.settings import WatchSettings
from msearchd.watch import clocks, hints, mounts, roots
from msearchd.watch.changes import RootWent
from msearchd.watch.clocks import Clocks
from msearchd.watch.disk import RootContext, RootIdentity, RootUnreadable, open_root
from msearchd.watch.disk_keeper import DiskKeeper
from msearchd.watch.hints import Hint, NoCoverage, WatchSource
from msearchd.watch.lane import DiskLane
from msearchd.watch.ports import ChangeSink, KnownTree
from msearchd.watch.scan import ScanJob
from msearchd.watch.scan_queue import ScanQueue
from msearchd.watch.settler import Settler
from msearchd.watch.sources.choice import Sources
from msearchd.watch.status import ScanSummary
from msearchd.watch.watched import WatchedRoot

log = structlog.get_logger(__name__)

#: A root whose losses are in doubt is scanned again after this, doubled up to an hour; at once if it was remounted.
_DOUBT_RETRY_S: Final = 60.0
_DOUBT_RETRY_TOP_S: Final = 3600.0
_RETRY_UNREADABLE_S: Final = 60.0
#: For a look at the root itself: a share that needs longer is as good as gone.
_PROBE_DEADLINE_S: Final = 10.0


class RootKeeper:
    """One per watcher, used by its one task."""

    def __init__(
        self,
        settings: WatchSettings,
        watched: Mapping[RootId, WatchedRoot],
        *,
        known: KnownTree,
        sink: ChangeSink,
        settler: Settler,
        scans: ScanQueue,
        sources: Sources,
        lane: DiskLane,
        disks: DiskKeeper,
        read_clocks: Callable[[], Clocks] = clocks.read,
    ) -> None:
        self._settings = settings
        self._watched = watched
        self._known = known
        self._sink = sink
        self._settler = settler
        self._scans = scans
        self._sources = sources
        self._lane = lane
        self._disks = disks
        self._read_clocks = read_clocks
        self._clocks = read_clocks()
        #: The last thing that made a comparison of everything necessary, and when (UTC, milliseconds).
        self.last_doubt: tuple[int, str] = (0, "")

    async def tend(self, *, now: float) -> None:
        """Open what can be opened, notice what went, ask for the scans that are due. One look per root."""
        await self._disks.start()
        self._look_at_clocks()
        for watched in list(self._watched.values()):
            if watched.is_open:
                await self._look_again(watched)
            else:
                await self._try_open(watched, now)
            if watched.is_open:
                await self._look_inside(watched, now)
            if not watched.is_open:
                continue
            await self.tell_online(watched)
            if now >= watched.verify_at:
                watched.verify_at = float("inf")
                self._scans.add(watched, kind="verify")
            if watched.unreadable and now >= watched.retry_unreadable_at:
                watched.retry_unreadable_at = now + _RETRY_UNREADABLE_S
                for path in list(watched.unreadable):  # with all below: nothing there was looked at or watched since
                    hint = Hint(watched.root.id, path, is_recursive=True, flags=hints.ATTRIB | hints.DIR)
                    self._settler.observe(hint, now=now)
        await self._disks.save()

    def accept(self, watched: WatchedRoot) -> None:
        """A person said that what is missing of a root was deleted, and that the disk there is the right one."""
        watched.accepts_losses = True
        self._disks.forget_away(watched)

    async def take_offline(self, watched: WatchedRoot, reason: str) -> None:
        """Delete nothing, forget what was pending: it is compared as a whole when it is back."""
        root = watched.root.id
        was_open, watched.is_open, watched.last_scan_ms = watched.is_open, False, 0
        # A missing folder is looked for often and cheaply; a doubted one costs a scan each time.
        pause_s = min(_DOUBT_RETRY_S * 2.0 ** min(watched.doubts, 10), _DOUBT_RETRY_TOP_S) if watched.doubted else 0.0
        watched.retry_at = time.monotonic() + pause_s
        self._settler.forget(root)
        self._scans.drop(root, reason=reason)
        watched.unreadable.clear()
        if was_open and watched.source is not None:
            await watched.source.remove_root(root)
        if watched.state is RootState.OFFLINE and watched.reason == reason:
            return
        log.warning("folder is offline, nothing is deleted", root=root, reason=reason)
        await self._sink.apply([RootWent(root, RootState.OFFLINE, reason)])  # refused: the next look says it again
        watched.state, watched.reason = RootState.OFFLINE, reason

    async def tell_online(self, watched: WatchedRoot) -> None:
        """Say that a root is back, once all of it was compared; asked again until the sink has taken it."""
        if watched.state is RootState.ONLINE or not watched.last_scan_ms:
            return
        await self._sink.apply([RootWent(watched.root.id, RootState.ONLINE, "")])
        watched.state, watched.reason = RootState.ONLINE, ""
        log.info("folder is back", root=watched.root.id)

    async def doubt(self, watched: WatchedRoot, job: ScanJob) -> str:
        """Why what *job* missed is not believed; empty if it is."""
        accepts = job.accepts_losses or watched.accepts_losses or job.kind == "live"
        if accepts or not (job.vanished.files or job.vanished.dirs):
            return ""
        lost = len(job.vanished.files) + job.vanished.dropped
        for path in job.vanished.dirs:
            lost += await self._known.count_files(job.root, path)
        losses = roots.Losses(job.known_files, lost, job.is_root_empty, is_vouched=watched.is_vouched)
        return roots.doubt(losses, brake_percent=self._settings.vanish_brake_percent)

    async def put_in_doubt(self, watched: WatchedRoot, reason: str) -> None:
        """Close a root whose losses are not believed, and remember which folder showed them."""
        watched.doubted, watched.doubts = watched.context.identity, watched.doubts + 1
        await self.take_offline(watched, reason)

    async def whole_root_scanned(self, watched: WatchedRoot, summary: ScanSummary) -> None:
        """All of it was compared and believed."""
        watched.last_scan_ms = time.time_ns() // 1_000_000
        watched.is_vouched = not watched.is_network
        watched.doubted, watched.doubts, watched.accepts_losses = None, 0, False
        self._disks.believed(watched)
        hours = self._settings.rescan_interval_h
        # Spread by a quarter: ten roots added together do not scan together for ever.
        spread = random.uniform(0.75, 1.25)  # noqa: S311
        watched.verify_at = time.monotonic() + hours * 3600 * spread if hours else float("inf")
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
        await self.tell_online(watched)

    # -- open and look -------------------------------------------------------------------------------------------------

    async def _try_open(self, watched: WatchedRoot, now: float) -> None:
        if self._lane.is_stuck(watched.root.id) or (now < watched.retry_at and watched.doubted is None):
            return
        watched.context.identity = None
        try:
            identity, fs_type, file_system = await self._lane.run(
                watched.context, lambda: _probe(watched.root.path), deadline_s=_PROBE_DEADLINE_S
            )
            if identity == watched.doubted and now < watched.retry_at:
                return
            strange = await self._disks.strange_disk(watched, file_system)
        except RootUnreadable as trouble:
            watched.doubted = None
            await self.take_offline(watched, trouble.reason)
            return
        if strange:
            watched.context.identity = identity
            await self.put_in_doubt(watched, strange)
            return
        watched.file_system = file_system
        watched.is_network = roots.is_network(fs_type)
        await self._give_source(watched, self._sources.for_root(is_network=watched.is_network))
        watched.is_open = True
        # Of a root of which nothing was known, all that is known was found in this very directory since.
        watched.is_vouched = not watched.is_network and not await self._known.count_files(watched.root.id)
        watched.verify_at = float("inf")
        # Entering a folder looks at its times too: no need to look at them twice.
        self._scans.add(watched, kind="stamps" if isinstance(watched.context.coverage, NoCoverage) else "attach")
        cursor = self._disks.cursor(watched)
        if cursor and cursor != (b"",):  # a scan was cut off: first what it had not reached
            self._scans.add(watched, kind="repair", folders=cursor)
        self._scans.add(watched, kind="start")

    async def _look_inside(self, watched: WatchedRoot, now: float) -> None:
        """Disks that are mounted in the root: compare those that came, look at the places of those that went."""
        try:
            came, went = await self._disks.look_inside(watched)
        except RootUnreadable as trouble:
            await self.take_offline(watched, trouble.reason)
            return
        for path in came:
            self._scans.add(watched, path, kind="repair")
        for path in went:
            self._settler.observe(Hint(watched.root.id, path, flags=hints.ATTRIB | hints.DIR), now=now)

    def _look_at_clocks(self) -> None:
        """After a sleep disks may have been elsewhere; after a step of the clock, times prove nothing."""
        before, self._clocks = self._clocks, self._read_clocks()
        happened = clocks.what_happened(before, self._clocks)
        if not happened:
            return
        reason = "the machine slept" if happened == "resumed" else "the clock was set"
        self.last_doubt = (time.time_ns() // 1_000_000, f"{reason}: folders are compared once more")
        log.info("comparing folders once more", reason=reason)
        for watched in self._watched.values():
            watched.retry_at = 0.0
            if watched.is_open:
                if happened == "resumed":
                    self._scans.add(watched, kind="stamps")
                self._scans.add(watched, kind="start")

    async def _give_source(self, watched: WatchedRoot, source: WatchSource) -> None:
        try:
            await source.add_root(watched.root)
        except (errors.RetryLater, errors.Misconfigured) as trouble:
            log.warning("cannot watch, looking by the clock", root=watched.root.id, reason=trouble.sentence())
            source = self._sources.polling()
            await source.add_root(watched.root)
        watched.source, watched.context.coverage = source, source.coverage

    async def _look_again(self, watched: WatchedRoot) -> None:
        try:
            await self._lane.run(
                watched.context, lambda: _check_identity(watched.context), deadline_s=_PROBE_DEADLINE_S
            )
        except RootUnreadable as trouble:
            await self.take_offline(watched, trouble.reason)


def _probe(path: bytes) -> tuple[RootIdentity, str, str]:
    """(which folder stands there, type of its file system, its name)."""
    fd, identity = open_root(path)
    os.close(fd)
    try:
        return identity, roots.file_system_type(path), mounts.file_system_id(path)
    except OSError as error:
        raise RootUnreadable(f"it cannot be looked at: {error.strerror}") from error


def _check_identity(context: RootContext) -> None:
    fd, identity = open_root(context.root.path)
    os.close(fd)
    if context.identity is not None and identity != context.identity:
        raise RootUnreadable("another folder stands in its place (unmounted, or replaced)")
