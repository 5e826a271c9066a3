"""Enqueues of one turn of the loop, written as one operation and acknowledged one by one after its COMMIT.

In: steps owed, from any number of callers. Out: a future each. A transaction costs as much as thirty rows, an operation
as much as two: a burst of callers shares both.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from msearchd import errors
from msearchd.aio.sqlite import Database
from msearchd.domain.job import Owed


class Owing:
    """Owned by the loop thread."""

    def __init__(
        self,
        database: Database,
        enqueue_in: Callable[[sqlite3.Connection, Iterable[Owed]], None],
        *,
        then: Callable[[], None],
    ) -> None:
        self._database = database
        self._enqueue_in = enqueue_in
        self._then = then
        self._owed: list[Owed] = []
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, owed: Sequence[Owed]) -> asyncio.Future[None]:
        """Done when *owed* are committed; raises RetryLater where they cannot be. Cancelled, they may be owed or not."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._submit)
        self._owed += owed
        waiting = loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def _submit(self) -> None:
        # Taken here, on the loop: what comes from now on belongs to the next operation.
        owed, self._owed = self._owed, []
        waiting, self._waiting = self._waiting, []
        try:
            writing = self._database.submit(lambda c: self._enqueue_in(c, owed))
        except errors.MsearchError as error:
            _answer(waiting, error)
            return
        writing.add_done_callback(lambda done: self._written(done, waiting))

    def _written(self, done: asyncio.Future[None], waiting: Sequence[asyncio.Future[None]]) -> None:
        error = errors.RetryLater("the database is closing") if done.cancelled() else done.exception()
        _answer(waiting, error)
        if error is None:
            self._then()


def _answer(waiting: Sequence[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in waiting:
        if future.done():  # its caller was cancelled; the effect stands
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
