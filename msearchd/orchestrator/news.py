"""News for whoever listens on the socket: files that became searchable or went, folders, scans, models.

    changes of the watcher ── ToldChanges ──▶ file removed, file moved, folder gone, folder offline, ...
    outcomes of jobs ──────── News ─────────▶ file indexed, file skipped
    snapshots ─────────────── differences ──▶ scan started, scan finished, model loaded, model unloaded, ...

In: what happens. Out: events. While nobody listens nothing is looked up, and what was left out is counted as missed.
"""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msearchd.control.events import EventBus
from msearchd.control.types import path_text
from msearchd.domain.asset import AssetId, AssetState, RootId, RootState
from msearchd.inference.pool import PoolStatus
from msearchd.jobs.queue import JobQueue
from msearchd.store.catalog import AssetRow, Catalog
from msearchd.watch import changes
from msearchd.watch.ports import ChangeSink
from msearchd.watch.status import WatchStatus

Event_ = tuple[str, Mapping[str, Any]]
#: Changes come in bursts; a listener hears of a file within this time.
_GATHER_S: Final = 0.2
#: How often snapshots are compared while somebody listens.
_LOOK_S: Final = 1.0
#: Files that wait to be told, the oldest of them go: two seconds of a fast first scan.
_MOST_WAITING: Final = 4096
_LOADED: Final = frozenset({"ready", "busy"})


# -- snapshots ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What two looks are compared by: scans running by root path, models by state."""

    scans: Mapping[bytes, str]
    models: Mapping[str, tuple[str, str, str]]  # name: (state, device, reason)


def seen(watch: WatchStatus, pool: PoolStatus) -> Seen:
    """What there is to see now. Pure."""
    models = {model.name: (_plain(model.state), model.device, model.reason) for model in pool.models}
    return Seen({root.path: root.scan for root in watch.roots}, models)


def _plain(state: str) -> str:
    return "loaded" if state in _LOADED else state


def differences(before: Seen, now: Seen) -> Iterator[Event_]:
    """The events that lie between two looks. Pure."""
    for path, scan in now.scans.items():
        if bool(scan) != bool(before.scans.get(path, "")):
            yield "scan started" if scan else "scan finished", {"path": path_text(path)}
    for name, (state, device, reason) in now.models.items():
        was = before.models.get(name, ("unloaded", "", ""))[0]
        if state == was:
            continue
        if state == "loaded":
            yield "model loaded", {"model": name, "device": device}
        elif state == "unusable":
            yield "model unusable", {"model": name, "reason": reason}
        elif was == "loaded":
            yield "model unloaded", {"model": name}


# -- changes ------------------------------------------------------------------------------------------------------------


class ToldChanges:
    """A ChangeSink that tells of what it has made durable."""

    def __init__(self, sink: ChangeSink, catalog: Catalog, bus: EventBus) -> None:
        self._sink = sink
        self._catalog = catalog
        self._bus = bus

    async def apply(self, batch: Sequence[changes.Change]) -> None:
        """As the sink, then tell."""
        await self._sink.apply(batch)
        wanted = [change for change in batch if isinstance(change, _TOLD)]
        if not wanted:
            return
        if not self._bus.is_heard:
            self._bus.skip(len(wanted))
            return
        roots = {root.id: root.path for root in await self._catalog.roots()}
        for event, told in changes_told(wanted, roots):
            self._bus.publish(event, told)


_TOLD: Final = (
    changes.FileGone,
    changes.FileMoved,
    changes.TreeGone,
    changes.TreeMoved,
    changes.RootWent,
)


def changes_told(batch: Iterable[changes.Change], roots: Mapping[RootId, bytes]) -> Iterator[Event_]:
    """Events of changes; a root that was removed meanwhile is told by its own event. Pure."""
    batch = list(batch)
    # A tree is moved to a place that was cleared before it: no news.
    cleared = {(change.new_root, change.new) for change in batch if isinstance(change, changes.TreeMoved)}
    for change in batch:
        match change:
            case changes.TreeGone() if (change.root, change.path) in cleared:
                pass
            case changes.RootWent() if change.root in roots:
                place = {"path": path_text(roots[change.root])}
                if change.state is RootState.ONLINE:
                    yield "folder online", place
                else:
                    yield "folder offline", {**place, "reason": change.reason}
            case changes.FileGone() | changes.TreeGone() if change.root in roots:
                name = "file removed" if isinstance(change, changes.FileGone) else "folder gone"
                yield name, {"path": _joined(roots[change.root], change.path)}
            case changes.FileMoved() | changes.TreeMoved() if change.root in roots and change.new_root in roots:
                name = "file moved" if isinstance(change, changes.FileMoved) else "folder moved"
                to = _joined(roots[change.new_root], change.new)
                yield name, {"path": _joined(roots[change.root], change.old), "to": to}
            case _:
                pass


def _joined(root: bytes, relative: bytes) -> str:
    return path_text(os.path.join(root, relative) if relative else root)


# -- files --------------------------------------------------------------------------------------------------------------


class News:
    """One service: tells of files that are done with, and compares snapshots."""

    def __init__(
        self,
        *,
        bus: EventBus,
        catalog: Catalog,
        queue: JobQueue,
        look: Callable[[], Seen],
    ) -> None:
        self._bus = bus
        self._catalog = catalog
        self._queue = queue
        self._look = look
        self._before: Seen | None = None
        self._settled: collections.deque[AssetId] = collections.deque(maxlen=_MOST_WAITING)
        self._looked_at: tuple[AssetId, ...] = ()  # whose transaction was not over at the last look

    def note(self, asset: AssetId) -> None:
        """*asset* has nothing open any more. Called inside its transaction, on a thread: its state is looked up before it is
        told, and once more where that was before the transaction's end.
        """
        self._settled.append(asset)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            number = self._queue.changes_seen()
            await self._tell()
            if await self._has_moved(number):
                await asyncio.sleep(_GATHER_S)

    async def _has_moved(self, number: int) -> bool:
        """Wait for the queue; at most a second while somebody listens, and until somebody does."""
        moved = asyncio.create_task(self._queue.wait_change(number), name="news-queue")
        heard = asyncio.create_task(self._bus.listened(), name="news-listener")
        waited = {moved} if self._bus.has_listener else {moved, heard}
        try:
            timeout_s = _LOOK_S if self._bus.has_listener else None
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            return moved.done()
        finally:
            moved.cancel()
            heard.cancel()

    async def _tell(self) -> None:
        looked_at, self._looked_at = self._looked_at, ()
        noted = [self._settled.popleft() for _ in range(len(self._settled))]  # more may be noted meanwhile
        settled = dict.fromkeys((*looked_at, *noted))
        if not self._bus.is_heard:
            self._before = None  # what happened while nobody listened is no news later
            if settled:
                self._bus.skip(len(settled))
            return
        before, self._before = self._before, self._look()
        for event, told in differences(before or self._before, self._before):
            self._bus.publish(event, told)
        unsettled = []
        for asset in settled:
            row = await self._catalog.asset(asset)
            if row is not None and (found := file_told(row)) is not None:
                self._bus.publish(*found)
            elif row is not None and not row.is_gone:
                unsettled.append(asset)
        self._looked_at = tuple({*unsettled} & {*noted})


def file_told(row: AssetRow) -> Event_ | None:
    """The event of a file that was done with; None where it is at work again, or gone. Pure."""
    if row.is_gone:
        return None
    if row.state is AssetState.INDEXED:
        return "file indexed", {"path": path_text(row.path), "type": row.type_label}
    if row.state is AssetState.SKIPPED:
        return "file skipped", {"path": path_text(row.path), "reason": row.reason}
    return None
