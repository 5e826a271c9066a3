"""What the watcher remembers of a root, and of a caller of `sync`. Mutable; owned by the watcher's one task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from msearchd.domain.asset import Root, RootId, RootState
from msearchd.watch import paths
from msearchd.watch.disk import RootContext, RootIdentity
from msearchd.watch.hints import WatchSource
from msearchd.watch.scan import ScanJob


@dataclass(slots=True)
class WatchedRoot:
    """A root. `is_open`: it can be read and its source watches it; `state` is what others were told."""

    root: Root
    context: RootContext
    state: RootState
    reason: str
    source: WatchSource | None = None
    is_open: bool = False
    is_network: bool = False
    #: The same mounted folder has been watched since its last whole scan: what vanishes was deleted in it.
    is_vouched: bool = False
    #: Which folder stood there when its losses were not believed; another one there is worth a scan at once.
    doubted: RootIdentity | None = None
    doubts: int = 0
    #: A person said that what is missing was deleted; holds until the next whole scan is over.
    accepts_losses: bool = False
    retry_at: float = 0.0
    verify_at: float = float("inf")
    retry_unreadable_at: float = 0.0
    last_scan_ms: int = 0
    unreadable: dict[bytes, str] = field(default_factory=dict)
    #: `mounts.file_system_id` of the folder that stands there.
    file_system: str = ""

    def forget_unreadable(self, path: bytes) -> None:
        """Nothing at *path* is a folder any more: what could not be read there is no trouble now."""
        for gone in [at for at in self.unreadable if paths.is_below(at, path)]:
            del self.unreadable[gone]


@dataclass(slots=True, eq=False)
class Ticket:
    """A caller of `sync`: served once nothing pends and the scans that it needs are over."""

    done: asyncio.Future[None]
    scan_roots: set[RootId] = field(default_factory=set)
    has_begun: bool = False
    rounds: int = 0
    _jobs: set[ScanJob] = field(default_factory=set)
    _is_closed: bool = False

    def take(self, jobs: Iterable[ScanJob]) -> None:
        """Wait for *jobs* too; after some rounds of a folder that never rests, only for those taken before."""
        if self.rounds <= 3:
            self._jobs |= set(jobs)

    def is_served(self) -> bool:
        """True when every scan it waits for is over or given up."""
        return all(job.done.done() for job in self._jobs)
