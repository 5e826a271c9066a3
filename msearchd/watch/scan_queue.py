"""Which scans wait, and which is next. No disk, no tasks; owned by the watcher's one task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msearchd import errors
from msearchd.domain.asset import RootId
from msearchd.watch.scan import ScanJob, ScanKind
from msearchd.watch.watched import WatchedRoot

_ORDER: Final[dict[ScanKind, int]] = {
    "live": 0, "stamps": 1, "quick": 2, "attach": 3, "repair": 4, "start": 5, "verify": 6,
}  # fmt: skip


class ScanQueue:
    """Jobs of all roots. `notify` is called when there is one more."""

    def __init__(self, *, notify: Callable[[], None]) -> None:
        self._jobs: list[ScanJob] = []
        self._notify = notify
        #: Scans that nobody waits for rest until then, in seconds of the monotonic clock.
        self.background_rests_until = 0.0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __contains__(self, job: ScanJob) -> bool:
        return job in self._jobs

    def add(
        self,
        watched: WatchedRoot,
        path: bytes = b"",
        *,
        kind: ScanKind,
        folders: tuple[bytes, ...] = (),
        is_fresh: bool = False,
    ) -> ScanJob:
        """Ask for a scan. One that has not begun sees the same and is returned instead, unless *is_fresh*."""
        folders = folders or (path,)
        for waiting in self._jobs:
            if waiting.root != watched.root.id or waiting.has_begun or is_fresh:
                continue
            if (waiting.is_whole_root and kind != "quick") or (waiting.folders == folders and waiting.kind == kind):
                return waiting
            if waiting.kind == kind == "live":  # a burst of new folders is one walk
                waiting.add(folders)
                return waiting
        job = ScanJob(watched.context, path=path, folders=folders, kind=kind)
        self._jobs.append(job)
        self._notify()
        return job

    def next(self, *, now: float, is_open: Callable[[RootId], bool]) -> ScanJob | None:
        """The most urgent job of an open root; None if there is none, or only such as rest now."""
        jobs = [job for job in self._jobs if is_open(job.root)]
        if not jobs:
            return None
        job = min(jobs, key=lambda job: (_ORDER[job.kind], not job.has_begun))
        return None if self.is_in_background(job) and now < self.background_rests_until else job

    @staticmethod
    def is_in_background(job: ScanJob) -> bool:
        """True for whole scans that nobody waits for: a third of a core at most. The very first is waited for."""
        return not job.is_forced and (job.kind == "verify" or (job.kind == "start" and job.known_files > 0))

    def of(self, root: RootId) -> list[ScanJob]:
        """The jobs of a root, those at work first."""
        return sorted((job for job in self._jobs if job.root == root), key=lambda job: not job.has_begun)

    def needed(self) -> list[ScanJob]:
        """Jobs without which the index may be behind the disk: all but the clock's own."""
        return [job for job in self._jobs if job.kind != "verify"]

    def remove(self, job: ScanJob) -> None:
        """It is over."""
        self._jobs.remove(job)

    def drop(self, root: RootId, *, reason: str) -> None:
        """Give up all scans of a root; who waits for one is told why."""
        for job in self.of(root):
            self._jobs.remove(job)
            if not job.done.done():
                job.done.set_exception(errors.RetryLater(f"the scan was given up: {reason}", after_s=10))
                job.done.exception()  # retrieved: nobody may be waiting

    def describe(self) -> str:
        """One line for a person who waits."""
        return ", ".join(f"{job.kind} scan, {job.dirs} folders done" for job in self._jobs) or "no scan"
