"""The whole state on one page, from the snapshots of all stages. Pulled, never pushed.

In: snapshots and `now`. Out: StatusReply. Never waits for a worker.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msearchd
from msearchd.aio.child import resident_bytes
from msearchd.aio.loopwatch import LoopLag
from msearchd.control.replies import (
    BlockedReason,
    FolderCounts,
    FolderReply,
    ModelReply,
    ProgressReply,
    QueueReply,
    RunningReply,
    StatusReply,
    StoreReply,
    WatchReply,
)
from msearchd.control.types import path_text
from msearchd.control.upkeep_replies import QueuePageReply
from msearchd.domain.asset import AssetState, Root
from msearchd.domain.job import Step
from msearchd.domain.space import ModelKey
from msearchd.inference.pool import ModelStatus, Pool
from msearchd.jobs.queue import JobQueue, QueueCounts
from msearchd.orchestrator.outcomes import Outcomes
from msearchd.orchestrator.progress import Kind, RateMeter, time_left_s
from msearchd.orchestrator.queue_page import queue_page
from msearchd.orchestrator.runner import Runner
from msearchd.store.catalog import Catalog
from msearchd.store.vector_store import StoreHealth, VectorStore
from msearchd.watch.status import WatchStatus

_MODEL_STATES: dict[str, Literal["unloaded", "loading", "ready", "unusable"]] = {
    "unloaded": "unloaded",
    "loading": "loading",
    "ready": "ready",
    "busy": "ready",
    "unusable": "unusable",
}
_EMBED: str = Step.EMBED.value
#: Running jobs named in the status, longest first.
_RUNNING_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the status comes from."""

    catalog: Catalog
    queue: JobQueue
    store: VectorStore
    pool: Pool
    outcomes: Outcomes
    runner: Runner
    watch: Callable[[], WatchStatus]
    problems: Callable[[], Sequence[str]]  # standing troubles of the daemon itself, as sentences
    notices: Callable[[], Sequence[str]]  # what a person may decide, as sentences; nothing is wrong
    is_draining: Callable[[], bool]
    loop_lag: Callable[[], LoopLag]
    publish: Callable[[str, Mapping[str, object]], object]  # events
    data_dir: Path
    config_file: str


class StatusPage:
    """Composes the status; remembers what rates need."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._started_s = time.monotonic()
        self._rate = RateMeter()
        self._indexed_seen = 0
        self._at_start: dict[Kind, int] | None = None  # jobs that waited before this life's paces were taken

    def sample(self) -> None:
        """Note how many files became searchable since the last call; called now and then by the upkeep."""
        indexed = self._from.outcomes.indexed
        if indexed != self._indexed_seen:
            self._from.publish("progress", {"files_indexed": indexed})
            self._rate.add(indexed - self._indexed_seen, now=time.monotonic())
            self._indexed_seen = indexed

    async def compose(self) -> StatusReply:
        """The page as it is now."""
        source = self._from
        self.sample()
        counts = await source.queue.counts()
        files = await source.catalog.counts()
        roots = await source.catalog.roots()
        pauses = list(await source.queue.pauses())
        watch = source.watch()
        health = await source.store.health()
        blocked = [
            BlockedReason(cause=b.cause, reason=b.reason, jobs=b.jobs) for b in await source.queue.blocked_reasons()
        ]
        models = [model_reply(model) for model in source.pool.snapshot().models]
        rate = self._rate.per_s(now=time.monotonic())
        problems = [*source.problems(), *_problems(watch, health, blocked)]
        return StatusReply(
            version=msearchd.__version__,
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self._started_s, 1),
            state=self._state(pauses, problems),
            pauses=pauses,
            problems=problems,
            notices=list(source.notices()),
            data_dir=str(source.data_dir),
            config_file=source.config_file,
            resident_bytes=resident_bytes(os.getpid()),
            folders=[folder_reply(root, files.get(root.id, {}), watch) for root in roots],
            watch=watch_reply(watch),
            queue=QueueReply(
                ready=counts.ready,
                running=counts.running,
                delayed=counts.delayed,
                blocked=counts.blocked,
                failed=counts.failed,
                by_step=dict(counts.by_step),
                oldest_ready_s=_age_s(counts.oldest_ready_ms),
            ),
            blocked=blocked,
            running=await self._running(),
            progress=ProgressReply(files_per_s=round(rate, 3), eta_s=self._eta_s(counts)),
            models=models,
            store=_store_reply(health),
            loop_lag_p99_ms=round(source.loop_lag().p99_ms, 1),
            disk_free_bytes=_free_bytes(source.data_dir),
        )

    async def queue_page(self) -> QueuePageReply:
        """The queue in numbers, with the rate at which files become searchable."""
        self.sample()
        rate = self._rate.per_s(now=time.monotonic())
        progress = ProgressReply(files_per_s=round(rate, 3), eta_s=self._eta_s(await self._from.queue.counts()))
        return queue_page(await self._from.queue.overview(), now_ms=time.time_ns() // 1_000_000, progress=progress)

    def _eta_s(self, counts: QueueCounts) -> float | None:
        meter = self._from.runner.paces
        waiting = dict(counts.by_kind)
        for kind, jobs in meter.active.items():
            waiting[kind] = waiting.get(kind, 0) + jobs
        paces = meter.paces()
        if self._at_start is None:
            ended = {kind: pace.ended for kind, pace in paces.items()}
            self._at_start = {kind: waiting.get(kind, 0) + ended.get(kind, 0) for kind in {*waiting, *ended}}
        models = [ModelKey(target) for (step, target), jobs in waiting.items() if step == _EMBED and jobs]
        turns = len(models) > 1 and not self._from.pool.fit_together(models)
        left_s = time_left_s(waiting, paces, at_start=self._at_start, takes_turns=turns)
        return None if left_s is None else round(left_s, 1)

    async def folders(self) -> list[FolderReply]:
        """The watched folders as the status shows them."""
        files = await self._from.catalog.counts()
        watch = self._from.watch()
        return [folder_reply(root, files.get(root.id, {}), watch) for root in await self._from.catalog.roots()]

    def _state(
        self, pauses: Sequence[str], problems: Sequence[str]
    ) -> Literal["ready", "paused", "degraded", "draining"]:
        if self._from.is_draining():
            return "draining"
        if pauses:
            return "paused"
        return "degraded" if problems else "ready"

    async def _running(self) -> list[RunningReply]:
        found = []
        for work in self._from.runner.in_work[:_RUNNING_SHOWN]:
            row = await self._from.catalog.asset(work.asset)
            if row is not None:
                found.append(
                    RunningReply(
                        path=path_text(row.path),
                        step=work.step.value,
                        for_s=round(time.monotonic() - work.since_s, 2),
                        doing=work.doing,
                    )
                )
        return found


def folder_reply(root: Root, files: dict[AssetState, int], watch: WatchStatus) -> FolderReply:
    """A root with its counts and what the watcher says of it."""
    seen = next((r for r in watch.roots if r.root == root.id), None)
    return FolderReply(
        path=path_text(root.path),
        state=root.state.value,
        reason=root.reason,
        files=FolderCounts(**{state.value: files.get(state, 0) for state in AssetState}),
        is_scanning=seen is not None and bool(seen.scan),
        scanned_dirs=seen.scan_dirs_done if seen else 0,
        unwatched_dirs=seen.unreadable_dirs if seen else 0,
    )


def model_reply(model: ModelStatus) -> ModelReply:
    """A model worker as the API shows it."""
    return ModelReply(
        name=model.name,
        state=_MODEL_STATES.get(model.state, "unusable"),
        reason=model.reason,
        engine=model.engine,
        device=model.device,
        dim=model.dim,
        resident_bytes=model.resident_bytes,
        restarts=model.restarts,
        waiting=model.waiting,
    )


def watch_reply(watch: WatchStatus) -> WatchReply:
    """Health of watching, with what last cast doubt on it."""
    return WatchReply(
        backend=watch.backend,
        health=watch.health,
        advice=watch.advice,
        overflows=watch.overflows,
        pending=watch.pending,
        last_doubt=watch.last_doubt,
        last_doubt_ms=watch.last_doubt_ms or None,
    )


def _store_reply(health: StoreHealth) -> StoreReply:
    return StoreReply(
        backend=health.backend,
        is_ok=health.is_ok,
        reason=health.reason,
        points=sum(space.points for space in health.spaces.values()),
        disk_bytes=sum(space.disk_bytes for space in health.spaces.values()),
        resident_bytes=health.resident_bytes,
        restarts=health.restarts,
    )


def _problems(watch: WatchStatus, health: StoreHealth, blocked: Sequence[BlockedReason]) -> list[str]:
    found = []
    if watch.health != "ok":
        found.append(f"watching is {watch.health}" + (f": {watch.advice}" if watch.advice else ""))
    found += [f"folder offline: {path_text(r.path)} ({r.reason})" for r in watch.roots if r.state.value == "offline"]
    if not health.is_ok:
        found.append(f"vector store: {health.reason}")
    found += [f"{item.jobs} jobs wait: {item.reason}" for item in blocked if not item.cause.startswith("root:")]
    return found


def _age_s(since_ms: int | None) -> float | None:
    return None if since_ms is None else round(max(0.0, time.time() - since_ms / 1000), 1)


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
