"""`process_file`, `batch_process_files`, `get_processing_status`: index these now, and say how far it is.

In: absolute paths. Out: runs, each a set of assets whose jobs are at interactive priority. Runs live in memory (the last
hundred): what they index is in the queue and survives; only the question "how far is it" does not.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import structlog

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.control.replies import FileProgress, ProcessReply
from msearchd.control.types import path_text
from msearchd.domain.asset import AssetId, AssetState, RootId
from msearchd.domain.job import JobState, Owed, Priority, Step
from msearchd.jobs.queue import JobQueue, JobRow
from msearchd.orchestrator.progress import eta_s
from msearchd.store.catalog import Catalog
from msearchd.watch.status import ScanSummary, Verdict

log = structlog.get_logger(__name__)

#: Runs remembered, and files listed one by one in an answer (those in trouble first).
_RUNS_KEPT: Final = 100
_FILES_SHOWN: Final = 1000
_ENQUEUE_GROUP: Final = 1000
#: A request goes on without what the watcher could not compare within this time.
_CATCH_UP_S: Final = 20.0
#: How far a file is when a step of it is the next open one; guesses by the usual share of the work.
_PERCENT_BEFORE: Final = {
    Step.IDENTIFY: 0.0,
    Step.EXTRACT: 10.0,
    Step.OCR: 30.0,
    Step.TRANSCRIBE: 30.0,
    Step.EMBED: 60.0,
    Step.RELOCATE: 95.0,
}

FileState = Literal["queued", "running", "done", "blocked", "failed", "skipped"]


class Folders(Protocol):
    """What processing needs of the watcher."""

    def verdict(self, path: bytes) -> Verdict: ...  # noqa: D102 - see Watcher
    async def scan_now(  # noqa: D102
        self, root_id: RootId, path: bytes = b"", *, accept_losses: bool = False
    ) -> ScanSummary: ...
    async def sync(self, *, deadline_s: float) -> None: ...  # noqa: D102


@dataclass(slots=True)
class Run:
    """One request. Owned by Processing."""

    id: str
    started_s: float
    waiting: list[bytes] = field(default_factory=list)  # paths not begun yet (batch)
    assets: dict[AssetId, bytes] = field(default_factory=dict)
    broken: dict[bytes, errors.MsearchError] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    ended_s: float | None = None


class Processing:
    """Begins runs and tells how far they are."""

    def __init__(self, *, database: Database, catalog: Catalog, queue: JobQueue, folders: Folders) -> None:
        self._database = database
        self._catalog = catalog
        self._queue = queue
        self._folders = folders
        self._runs: OrderedDict[str, Run] = OrderedDict()

    async def process_file(self, paths: Sequence[bytes]) -> str:
        """Put *paths* (files or folders) before everything else; return the run's id when all are in the queue.

        NotFound for a path that does not exist, BadRequest for one outside of every root or left out by a rule: then
        nothing was begun.
        """
        for path in paths:
            self._check(path)
        run = self._new_run()
        await self._catch_up()
        for path in paths:
            try:
                await self._begin(run, path)
            except errors.MsearchError as error:  # it went, or cannot be read now: the others go on
                run.broken[path] = error
        run.task = asyncio.create_task(self._finish(run), name=f"process:{run.id}")
        return run.id

    async def batch_process_files(self, paths: Sequence[bytes], *, concurrency: int) -> str:
        """As `process_file`, at most *concurrency* paths at once, answered at once; a bad path is a failed file of it."""
        run = self._new_run()
        run.waiting = list(reversed(paths))
        run.task = asyncio.create_task(self._batch(run, concurrency), name=f"batch:{run.id}")
        return run.id

    async def get_processing_status(self, run_id: str, *, wait_s: float = 0.0) -> ProcessReply:
        """State, percent and error of every file; waits up to *wait_s* for the end. NotFound for an unknown id."""
        run = self._runs.get(run_id)
        if run is None:
            message = f"no process request {run_id} is known"
            raise errors.NotFound(message, hint="only the last hundred since the start are; ask `explain` for the file")
        if run.task is not None and wait_s > 0:
            await asyncio.wait({run.task}, timeout=wait_s)
        return await self._reply(run)

    async def close(self) -> None:
        """Stop watching over runs; what they put into the queue goes on."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- parts ----------------------------------------------------------------------------------------------------------

    def _new_run(self) -> Run:
        run = Run(id=secrets.token_urlsafe(9), started_s=time.monotonic())
        self._runs[run.id] = run
        while len(self._runs) > _RUNS_KEPT:
            _, oldest = self._runs.popitem(last=False)
            if oldest.task is not None:
                oldest.task.cancel()
        return run

    def _check(self, path: bytes) -> Verdict:
        shown = os.fsdecode(path)
        if not os.path.lexists(path):
            message = f"{shown} does not exist"
            raise errors.NotFound(message, hint="check the path")
        verdict = self._folders.verdict(path)
        if verdict.root is None:
            message = f"{shown} is in no watched folder"
            raise errors.BadRequest(message, hint=f"add its folder first: msearch add {os.path.dirname(shown)}")
        if verdict.is_excluded:
            message = f"{shown} is left out by the rule {verdict.rule!r} ({verdict.rule_origin})"
            raise errors.BadRequest(message, hint="change the rule to index it")
        return verdict

    async def _begin(self, run: Run, path: bytes) -> list[AssetId]:
        verdict = self._check(path)
        if verdict.root is None:
            return []
        if stat.S_ISDIR(os.lstat(path).st_mode):
            begun = await self._files_below(verdict.root.id, verdict.relative)
        else:
            begun = [await self._file_at(verdict.root.id, verdict.relative, path)]
        run.assets.update(dict.fromkeys(begun, path))
        for start in range(0, len(begun), _ENQUEUE_GROUP):
            await self._owe(begun[start : start + _ENQUEUE_GROUP])
        return begun

    async def _files_below(self, root: RootId, folder: bytes) -> list[AssetId]:
        # Compared first, so that files which no event told of are known; what just appeared settles in `sync`.
        # Who names a whole folder means it: were it emptied, it is empty, and not on a disk that is away.
        await self._folders.scan_now(root, folder, accept_losses=not folder)
        await self._catch_up()
        begun: list[AssetId] = []
        async for group in self._catalog.assets_under(root, folder):
            begun += group
        return begun

    async def _file_at(self, root: RootId, relative: bytes, path: bytes) -> AssetId:
        """Raises RetryLater where the file does not settle: a download by its name, or one that is written just now."""
        row = await self._catalog.asset_by_path(path)
        if row is None or row.is_gone:  # no event told of it
            await self._folders.scan_now(root, relative.rpartition(b"/")[0])
            await self._catch_up()
            row = await self._catalog.asset_by_path(path)
        if row is None or row.is_gone:
            message = f"{os.fsdecode(path)} is still being written"
            raise errors.RetryLater(message, hint="it is indexed as soon as it rests")
        return row.id

    async def _catch_up(self) -> None:
        """Let the watcher hand over what it has seen, rest times skipped: a file saved just now is known then."""
        try:
            await self._folders.sync(deadline_s=_CATCH_UP_S)
        except errors.RetryLater as error:
            log.info("watcher not in step, going on with what is known", reason=error.sentence())

    async def _owe(self, assets: Iterable[AssetId]) -> None:
        wanted = tuple(assets)

        def write(c: sqlite3.Connection) -> None:
            for asset in wanted:
                if self._catalog.is_left_in(c, asset):  # too large, a placeholder: asking is no reason to read it
                    continue
                self._queue.enqueue_in(c, [Owed(asset, Step.IDENTIFY, priority=Priority.INTERACTIVE)])
                self._catalog.set_state_in(c, asset, AssetState.PENDING)

        await self._database.write(write)
        self._queue.notify()

    async def _finish(self, run: Run) -> None:
        await self._queue.idle_for(run.assets.keys(), deadline_s=_FOR_EVER_S)
        run.ended_s = time.monotonic()

    async def _batch(self, run: Run, concurrency: int) -> None:
        async def serve() -> None:
            while run.waiting:
                path = run.waiting.pop()
                try:
                    begun = await self._begin(run, path)
                except errors.MsearchError as error:
                    run.broken[path] = error
                    continue
                await self._queue.idle_for(begun, deadline_s=_FOR_EVER_S)

        await self._catch_up()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(serve())
        run.ended_s = time.monotonic()

    async def _reply(self, run: Run) -> ProcessReply:
        files = [FileProgress(path=path_text(p), state="queued") for p in reversed(run.waiting)]
        files += [
            FileProgress(path=path_text(path), state="failed", percent=100.0, error=str(error), hint=error.hint)
            for path, error in run.broken.items()
        ]
        for asset in list(run.assets):
            if (progress := await self._file(asset)) is not None:
                files.append(progress)
        total = len(files)
        ended = [f for f in files if f.state not in {"queued", "running"}]
        failed = sum(f.state in {"failed", "blocked"} for f in files)
        percent = (
            sum(100.0 if f.state not in {"queued", "running"} else f.percent for f in files) / total if total else 100.0
        )
        took_s = max(0.001, (run.ended_s or time.monotonic()) - run.started_s)
        rate = len(ended) / took_s
        return ProcessReply(
            id=run.id,
            state=run_state(files, is_over=run.ended_s is not None),
            percent=min(100.0, round(percent, 1)),
            total=total,
            done=len(ended) - failed,  # as the API counts: what failed is not done
            failed=failed,
            files_per_s=round(rate, 3),
            eta_s=eta_s(total - len(ended), rate),
            files=sorted(files, key=_trouble_first)[:_FILES_SHOWN],
        )

    async def _file(self, asset: AssetId) -> FileProgress | None:
        row = await self._catalog.asset(asset)
        if row is None or row.is_gone:
            return None
        jobs = await self._queue.jobs_of(asset)
        path = path_text(row.path)
        if row.state is AssetState.PENDING:
            return FileProgress(
                path=path,
                state=_pending_state(jobs),
                percent=percent_done(jobs),
                step=jobs[0].step.value if jobs else "",
                error=next((j.error for j in jobs if j.error), ""),
            )
        step = next((j.step.value for j in jobs), "")
        return FileProgress(path=path, state=_ENDED[row.state], percent=100.0, step=step, error=row.reason)


#: Waiting for jobs ends with the jobs, not with a clock.
_FOR_EVER_S: Final = 10 * 365 * 86400.0
_ENDED: Final[dict[AssetState, FileState]] = {
    AssetState.INDEXED: "done",
    AssetState.SKIPPED: "skipped",
    AssetState.FAILED: "failed",
    AssetState.BLOCKED: "blocked",
    AssetState.PENDING: "queued",
}


def percent_done(jobs: Sequence[JobRow]) -> float:
    """How far a file is, by the first step that is still open."""
    return min((_PERCENT_BEFORE.get(job.step, 0.0) for job in jobs), default=0.0)


def _pending_state(jobs: Sequence[JobRow]) -> FileState:
    return "running" if any(job.state is JobState.RUNNING for job in jobs) else "queued"


def run_state(
    files: Sequence[FileProgress], *, is_over: bool
) -> Literal["queued", "running", "done", "partly_failed", "failed"]:
    """State of a run by the states of its files: done with failures among them is partly_failed, with only those failed."""
    if not is_over and any(f.state in {"queued", "running"} for f in files):
        return "running" if any(f.state != "queued" for f in files) else "queued"
    if not is_over and not files:
        return "queued"
    bad = sum(f.state in {"failed", "blocked"} for f in files)
    if bad == 0:
        return "done"
    return "failed" if bad == len(files) else "partly_failed"


def _trouble_first(progress: FileProgress) -> tuple[int, str]:
    order = ("failed", "blocked", "running", "queued", "skipped", "done")
    return order.index(progress.state), progress.path
