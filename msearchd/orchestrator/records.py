"""What must survive: the database with catalog and queue, opened, or made anew where the file is damaged.

In: the data folder. Out: Records. A file that SQLite calls damaged, or that is empty although it was in use, is set aside
with its log and a fresh one begins: everything is found again by the scan at start. It is told in the log and in the
status; nothing ever starts empty in silence. A newer program's database is never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from msearchd.aio.aside import set_aside
from msearchd.aio.sqlite import DamagedDatabase, Database
from msearchd.domain.asset import AssetId
from msearchd.domain.job import Step
from msearchd.jobs.queue import JobQueue
from msearchd.settings.model import QueueSettings
from msearchd.store.catalog import Catalog

log = structlog.get_logger(__name__)

_NAME: Final = "msearchd.db"
#: There while a daemon runs: found at a start, the last end was a kill, a crash or a power cut.
_RUNNING: Final = "running"


@dataclass(frozen=True, slots=True)
class Records:
    """The open database and its two owners. `killed`: jobs that failed because they killed their process too often."""

    database: Database
    catalog: Catalog
    queue: JobQueue
    killed: Sequence[tuple[AssetId, Step, str]]
    was_unclean: bool

    async def close(self, data_dir: Path) -> None:
        """Close in order; after it the end was clean."""
        await self.queue.close()
        await self.database.close()
        with contextlib.suppress(OSError):
            await asyncio.to_thread((data_dir / _RUNNING).unlink, missing_ok=True)


async def open_records(data_dir: Path, settings: QueueSettings, *, damage: str = "") -> Records:
    """Open them; with *damage* (what was found wrong in the last life) set the file aside first.

    Raises Misconfigured: a newer database, or a folder that cannot be written; RetryLater: a full disk, a lock.
    """
    file = data_dir / _NAME
    was_unclean = await asyncio.to_thread(_begin, data_dir)
    damage = damage or await asyncio.to_thread(_emptied, data_dir)
    if damage:
        await _set_aside(file, damage)
    try:
        return await _open(file, settings, was_unclean=was_unclean)
    except DamagedDatabase as error:
        await _set_aside(file, str(error))
    return await _open(file, settings, was_unclean=False)


async def _open(file: Path, settings: QueueSettings, *, was_unclean: bool) -> Records:
    database = await Database.open(file, is_durable=settings.is_durable)
    try:
        catalog = Catalog(database)
        await catalog.open()
        queue = JobQueue(database, settings, now_ms=lambda: time.time_ns() // 1_000_000)
        killed = await queue.open()
    except BaseException:
        await database.close()
        raise
    return Records(database, catalog, queue, killed, was_unclean)


def _begin(data_dir: Path) -> bool:
    """Note that we run; True if somebody ran before us and did not end well."""
    marker = data_dir / _RUNNING
    was_unclean = marker.exists()
    with contextlib.suppress(OSError):  # a full or read-only disk is told by the database, in better words
        marker.touch(mode=0o600)
    return was_unclean


def _emptied(data_dir: Path) -> str:
    """Why an empty file is no new one: vectors, or folders that were added, lie beside it. "" where nothing is wrong."""
    file = data_dir / _NAME
    with contextlib.suppress(OSError):
        is_in_use = (data_dir / "vectors").is_dir() or (data_dir / "folders.json").exists()
        if is_in_use and file.exists() and file.stat().st_size == 0:
            return "the database file was empty"
    return ""


async def _set_aside(file: Path, reason: str) -> None:
    family = [
        file,
        *(file.with_name(file.name + end) for end in ("-wal", "-shm")),
    ]  # a new one must not meet the old log
    now = dt.datetime.now(dt.UTC)
    folder = await asyncio.to_thread(set_aside, file.parent, family, reason=reason, now=now)
    log.error("database damaged, made anew", reason=reason, set_aside=str(folder))
