"""The queues that bench.queue_bench compares ours with: huey, litequeue and persist-queue, as their manuals use them.

Each `*_queue` opens one on a file; each `*_take` takes jobs out and says that they are done, where the queue has such a word.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any


def huey_queue(path: Path) -> Any:
    from huey.storage import SqliteStorage

    class Normal(SqliteStorage):
        """It knows FULL and OFF; ours, litequeue and the bare loop run at NORMAL, so shall it."""

        def _create_connection(self) -> sqlite3.Connection:
            connection = super()._create_connection()
            connection.execute("pragma synchronous=1")
            return connection

    return Normal("bench", filename=str(path))


def litequeue_queue(path: Path) -> Any:
    from litequeue import LiteQueue

    return LiteQueue(str(path))


def persist_queue(path: Path) -> Any:
    import persistqueue

    return persistqueue.SQLiteAckQueue(str(path.with_suffix("")), auto_commit=True)


def huey_take(queue: Any, jobs: int) -> None:
    for _ in range(jobs):
        queue.dequeue()


def litequeue_take(queue: Any, jobs: int) -> None:
    for _ in range(jobs):
        queue.done(queue.pop().message_id)


def persist_take(queue: Any, jobs: int) -> None:
    for _ in range(jobs):
        queue.ack(queue.get(block=False))


def put_all(put: Callable[[Any], object], jobs: int, as_item: Callable[[int], Any]) -> None:
    for number in range(jobs):
        put(as_item(number))
