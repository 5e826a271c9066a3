"""The watch service: sources → settler → resolver and scanner → ChangeSink.

One task does one unit of work at a time (`Units`): a batch of settled hints, or one slice of a scan. Which is next is said
here: hints go before scans; a scan of a million files delays a save by one slice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.settings import WatchSettings
from msearchd.watch import hints, paths, report
from msearchd.watch.comparer import Comparer
from msearchd.watch.disk import RootContext
from msearchd.watch.disk_keeper import DiskKeeper
from msearchd.watch.hints import NoCoverage
from msearchd.watch.ignore import Rules
from msearchd.watch.lane import DiskLane
from msearchd.watch.ports import ChangeSink, KnownTree
from msearchd.watch.resolver import Resolver
from msearchd.watch.rests import Delays
from msearchd.watch.root_keeper import RootKeeper
from msearchd.watch.roots import kernel_folders_below
from msearchd.watch.scan import Scanner
from msearchd.watch.scan_queue import ScanQueue
from msearchd.watch.settler import Settler
from msearchd.watch.sources.choice import Sources
from msearchd.watch.status import ScanSummary, Verdict, WatchStatus
from msearchd.watch.units import Units
from msearchd.watch.watched import Ticket, WatchedRoot

log = structlog.get_logger(__name__)

#: After a trouble that a person has to end.
_MISCONFIGURED_REST_S: Final = 5.0
#: How often roots are tended: offline ones tried, online ones looked at. One lstat each.
_TEND_EVERY_S: Final = 3.0
_SYNC_ROUNDS: Final = 8


class Watcher:
    """See the module. Made, given roots, then run by the daemon's supervisor."""

    def __init__(
        self,
        settings: WatchSettings,
        known: KnownTree,
        sink: ChangeSink,
        *,
        state_dir: Path,
        private: Path | None = None,
        tended: Callable[[], None] = lambda: None,
        kind_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        Rules(b"/", settings)  # bad patterns are told now. Raises Misconfigured
        self._settings = settings
        self._known = known
        self._sink = sink
        self._kind_of = kind_of  # of a file, by its name: "image", "video", ...
        self._tended = tended  # called with each look at the roots, every few seconds: who wakes seldom may join
        self._state_dir = state_dir
        self._private = private or state_dir  # our own data: never indexed, wherever it lies
        self._sources = Sources(
            settings.backend, state_dir=state_dir, notify=self._wake_up, watch_modify=settings.watch_modify
        )
        self._settler = Settler(
            Delays(
                closed_s=settings.settle_closed_s,
                created_s=settings.settle_created_s,
                modified_s=settings.settle_modified_s,
                gone_s=settings.settle_gone_s,
                cap_s=settings.settle_cap_s,
            )
        )
        #: So much of a rest may have passed before we hear of the event; the other half is waited out in any case.
        self._late_s = settings.settle_closed_s / 2
        self._lane = DiskLane()
        self._disks = DiskKeeper(known, self._lane, state_dir / "roots.json", changed=self._tend_soon)
        comparer = Comparer(known, self._settler, fresh_s=settings.settle_modified_s, now=time.monotonic)
        self._roots: dict[RootId, WatchedRoot] = {}
        self._scans = ScanQueue(notify=self._wake_up)
        self._keeper = RootKeeper(
            settings,
            self._roots,
            known=known,
            sink=sink,
            settler=self._settler,
            scans=self._scans,
            sources=self._sources,
            lane=self._lane,
            disks=self._disks,
        )
        self._units = Units(
            self._roots,
            settler=self._settler,
            resolver=Resolver(known, comparer, self._lane.run),
            scanner=Scanner(known, sink, comparer, self._lane.run),
            scans=self._scans,
            sink=sink,
            keeper=self._keeper,
            disks=self._disks,
        )
        #: Held during a unit of work, so that a removed root is not spoken of afterwards.
        self._unit = asyncio.Lock()
        self._tickets: list[Ticket] = []
        self._wake = asyncio.Event()
        self._last_event_ms = 0
        self._is_scans_turn = False
        self._tend_at = 0.0

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
                    log.error("watching waits", reason=trouble.sentence())  # noqa: TRY400 - a sentence for people
                    await asyncio.sleep(_MISCONFIGURED_REST_S)
        except Exception as error:
            if isinstance(error, errors.Bug):
                raise
            message = f"the watcher failed: {type(error).__name__}: {error}"
            raise errors.Bug(message) from error
        finally:
            await self._disks.close()
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
        rules = Rules(
            root.path,
            self._settings,
            private=os.fsencode(self._private.resolve()),
            kernel=kernel_folders_below(root.path),
            kind_of=self._kind_of,
        )
        context = RootContext(root, rules, NoCoverage(), self._settings.max_file_bytes)
        self._roots[root.id] = WatchedRoot(root, context, state=root.state, reason=root.reason)
        self._tend_soon()

    async def remove_root(self, root_id: RootId) -> None:
        """Stop watching a root; what is known of it is its owner's business. Unknown ones are no error."""
        async with self._unit:
            watched = self._roots.pop(root_id, None)
            if watched is None:
                return
            self._settler.forget(root_id)
            self._disks.forget(root_id)
            self._scans.drop(root_id, reason="its folder is no longer watched")
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
        self._scans.add(self._root(root_id), path, kind="repair")

    async def scan_now(self, root_id: RootId, path: bytes = b"", *, accept_losses: bool = False) -> ScanSummary:
        """Compare a tree and return when that is done.

        With *accept_losses* even a loss that would put the root offline is believed: a person said so.
        Raises NotFound for an unknown root, RetryLater where the root cannot be read now.
        """
        watched = self._root(root_id)
        job = self._scans.add(watched, path, kind="repair", is_fresh=True)
        if accept_losses:
            self._keeper.accept(watched)
        watched.retry_at = 0.0
        self._tend_soon()
        return await asyncio.shield(job.done)

    def verdict(self, path: bytes) -> Verdict:
        """Whether *path* (absolute) is watched, or which rule leaves it out. Looks at the disk: best from a thread."""
        return report.verdict(path, list(self._roots.values()))

    def snapshot(self) -> WatchStatus:
        """How the stage stands."""
        return report.status_of(
            [(watched, self._scans.of(root)) for root, watched in self._roots.items()],
            self._sources.health(),
            last_event_ms=self._last_event_ms,
            pending=len(self._settler),
            last_doubt=self._keeper.last_doubt,
        )

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _one_round(self) -> None:
        self._wake.clear()
        async with self._unit:
            has_worked = await self._one_unit()
        if not has_worked:
            await self._sleep()

    async def _one_unit(self) -> bool:
        """One batch of hints, or one slice of a scan; False if there is nothing to do now."""
        now = time.monotonic()
        if now >= self._tend_at:
            self._tend_at = now + _TEND_EVERY_S
            self._tended()
            await self._keeper.tend(now=now)
        self._take_hints()  # NB: no await until tickets are served: one that came just now speaks of hints that wait
        if self._tickets and await self._serve_tickets():
            return True
        job = self._scans.next(now=now, is_open=lambda root: self._roots[root].is_open)
        # A burst makes hints without end, and the folders that it made wait: they take turns.
        is_scans_turn, self._is_scans_turn = self._is_scans_turn, not self._is_scans_turn
        if is_scans_turn and job is not None and job.kind == "live":
            await self._units.step(job)
            return True
        if settled := self._settler.due(now=time.monotonic()):
            await self._units.resolve(settled)
            return True
        if job is not None:
            await self._units.step(job)
            return True
        return False

    def _take_hints(self) -> None:
        now = time.monotonic()
        for source in self._sources.all():
            found = source.hints()
            if any(not hint.flags & hints.LOST for hint in found):
                self._last_event_ms = time.time_ns() // 1_000_000
            # Rest counts from when a thing happened, not from when we got round to it: at load that is the tail.
            self._settler.observe_all(found, now=min(now, max(source.seen_at, now - self._late_s)))

    async def _sleep(self) -> None:
        now = time.monotonic()
        until = min(self._settler.next_due() or self._tend_at, self._tend_at)
        if self._scans:
            until = min(until, self._scans.background_rests_until)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - now)):
                await self._wake.wait()

    def _wake_up(self) -> None:
        self._wake.set()

    def _tend_soon(self) -> None:
        self._tend_at = 0.0
        self._wake.set()

    # -- sync ----------------------------------------------------------------------------------------------------------

    async def _serve_tickets(self) -> bool:
        """One step of what waiting `sync` calls need; False if there was nothing to do but other work."""
        for ticket in self._tickets:
            if not ticket.has_begun:
                ticket.has_begun = True
                for root in ticket.scan_roots:
                    if (watched := self._roots.get(root)) is not None and watched.is_open:
                        self._scans.add(watched, kind="repair")
        settled = self._settler.flush()
        if settled:
            await self._units.resolve(settled)
        needed = [job for job in self._scans.needed() if self._roots[job.root].is_open]
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
        return f"{len(self._settler)} places pending, {self._scans.describe()}"
