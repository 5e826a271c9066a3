"""One unit of work of the watcher: a batch of settled hints, or one slice of a scan, compared and applied in one step.

In: settled hints, scan jobs. Out: changes at the sink, roots told to be in trouble, scans asked for. Never two units at
once: no two comparisons of the same folder cross. What a unit could not finish (disk full, store of changes busy) waits again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from msearchd import errors
from msearchd.domain.asset import RootId
from msearchd.watch import hints, paths
from msearchd.watch.disk import RootUnreadable
from msearchd.watch.disk_keeper import DiskKeeper
from msearchd.watch.hints import Hint
from msearchd.watch.ports import ChangeSink
from msearchd.watch.resolver import Resolved, Resolver
from msearchd.watch.root_keeper import RootKeeper
from msearchd.watch.scan import ScanJob, ScanKind, Scanner, vanished_as_hints
from msearchd.watch.scan_queue import ScanQueue
from msearchd.watch.settler import Settled, Settler
from msearchd.watch.watched import WatchedRoot

#: How often an unfinished whole scan writes down where it stands: so much is walked twice after a kill.
_CURSOR_EVERY_S: Final = 5.0


class Units:
    """Of one watcher, used by its one task."""

    def __init__(
        self,
        roots: Mapping[RootId, WatchedRoot],
        *,
        settler: Settler,
        resolver: Resolver,
        scanner: Scanner,
        scans: ScanQueue,
        sink: ChangeSink,
        keeper: RootKeeper,
        disks: DiskKeeper,
    ) -> None:
        self._roots = roots
        self._settler = settler
        self._resolver = resolver
        self._scanner = scanner
        self._scans = scans
        self._sink = sink
        self._keeper = keeper
        self._disks = disks
        self._cursor_at = 0.0

    async def resolve(self, settled: Sequence[Settled]) -> None:
        """One batch of settled hints, applied. On failure they wait again. Raises what store and sink raise."""
        contexts = {r.root.id: r.context for r in self._roots.values() if r.is_open}
        out = Resolved()
        try:
            await self._resolver.resolve(settled, contexts, out)
            if out.changes:
                await self._sink.apply(out.changes)
        except (errors.MsearchError, asyncio.CancelledError):  # a database called damaged, too: it may be read again
            self._observe_again(settled, out)
            raise
        self._leave(out)
        for rescan in out.rescans:
            watched = self._roots.get(rescan.root)
            if watched is not None and watched.is_open:
                kind: ScanKind = "live" if rescan.is_live else "repair"
                self._scans.add(watched, rescan.path, kind=kind, folders=rescan.folders)
        await self._note(out)

    def _observe_again(self, settled: Sequence[Settled], out: Resolved) -> None:
        now = time.monotonic()
        for one in settled:
            self._settler.put_back(one, now=now)
        for root, path in out.entered:
            self._observe_tree(root, path, now=now)

    def _observe_tree(self, root: RootId, path: bytes, *, now: float) -> None:
        self._settler.observe(Hint(root, path, is_recursive=True, flags=hints.DIR | hints.ATTRIB), now=now)

    def _leave(self, out: Resolved) -> None:
        """What is no folder any more is watched no longer. At once: a later look is spared where its tree is walked anyway."""
        back = {(root, at) for root, path in out.readable for at in paths.ancestors(path)} if out.left else set()
        for root, path in out.left:
            if path and (root, path) not in back and (watched := self._roots.get(root)) is not None:
                watched.context.coverage.leave(root, path)
                watched.forget_unreadable(path)

    async def _note(self, out: Resolved) -> None:
        for root, path in out.moved_from:
            self._settler.observe(Hint(root, path, is_recursive=True, flags=hints.DIR), now=time.monotonic())
        for root, path in out.readable:
            if (watched := self._roots.get(root)) is None or watched.unreadable.pop(path, None) is None:
                continue
            if (root, path) in out.shallow:  # names in it may have waited for this, and what is below them
                self._observe_tree(root, path, now=time.monotonic())
        for (root, path), reason in out.unreadable.items():
            if (watched := self._roots.get(root)) is not None and len(watched.unreadable) < 10_000:
                watched.unreadable[path] = reason
        for root, reason in out.trouble.items():
            if (watched := self._roots.get(root)) is not None:
                await self._keeper.take_offline(watched, reason)

    async def step(self, job: ScanJob) -> None:
        """One slice of a scan, applied. A job that failed begins anew the next time. Raises what store and sink raise."""
        out = Resolved()
        began = time.monotonic()
        try:
            is_over = await self._scanner.step(job, out)
        except RootUnreadable as trouble:
            await self._keeper.take_offline(self._roots[job.root], trouble.reason)
            return
        except errors.MsearchError:
            job.restart()
            raise
        self._leave(out)
        for root, path in (*out.left, *out.missed):  # it went while we walked: look at its name
            if path:
                self._settler.observe(Hint(root, path, flags=hints.GONE | hints.DIR), now=time.monotonic())
        await self._note(out)
        if job.is_whole_root and time.monotonic() >= self._cursor_at:
            self._cursor_at = time.monotonic() + _CURSOR_EVERY_S
            self._disks.note_cursor(self._roots[job.root], job.stack)
            await self._disks.save()
        if self._scans.is_in_background(job):
            self._scans.background_rests_until = time.monotonic() + 2 * (time.monotonic() - began)
        if is_over:
            await self._finish(job)

    async def _finish(self, job: ScanJob) -> None:
        """Judge what the walk missed; then it is gone, or the root is in doubt."""
        watched = self._roots[job.root]
        doubt = await self._keeper.doubt(watched, job)
        if not doubt:
            missing = vanished_as_hints(job, now=time.monotonic())
            for start in range(0, len(missing), 1000):
                await self.resolve(missing[start : start + 1000])
        if job not in self._scans:
            return  # the root went offline meanwhile
        self._scans.remove(job)
        if job.changed_dirs:
            self._scans.add(watched, kind="quick", folders=tuple(dict.fromkeys(job.changed_dirs)))
        if not doubt and job.vanished.dropped:  # more than memory was given for: another walk finds the rest
            again = self._scans.add(watched, job.path, kind="repair", folders=job.folders, is_fresh=True)
            again.accepts_losses = True
        summary = job.summary(doubt=doubt)
        try:
            if doubt:
                await self._keeper.put_in_doubt(watched, doubt)
            elif job.is_whole_root:
                await self._keeper.whole_root_scanned(watched, summary)
        finally:
            if not job.done.done():
                job.done.set_result(summary)
