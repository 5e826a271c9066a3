"""Calls of one turn of the loop, written as one operation and answered one by one after its COMMIT.

In: an item from each of any number of callers. Out: a future each. An operation of the database actor costs as much as two
rows, a future a fifth of that: a burst of callers shares the operation. All of them fail alike, by the disk alone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msearchd import errors
from msearchd.aio.sqlite import Database

T = TypeVar("T")
R = TypeVar("R")


class Gathered(Generic[T, R]):
    """Owned by the loop thread. *apply* takes all items of a turn and returns a result for each, in order."""

    def __init__(
        self,
        database: Database,
        apply: Callable[[sqlite3.Connection, list[T]], Sequence[R]],
        *,
        then: Callable[[], None],
    ) -> None:
        self._database = database
        self._apply = apply
        self._then = then
        self._items: list[T] = []
        self._waiting: list[asyncio.Future[R]] = []

    def add(self, item: T) -> asyncio.Future[R]:
        """The result of *item* once it is committed. Raises RetryLater where it cannot be; cancelled, it may be or not."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._submit)
        self._items.append(item)
        waiting: asyncio.Future[R] = loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def _submit(self) -> None:
        # Taken here, on the loop: what comes from now on belongs to the next operation.
        items, self._items = self._items, []
        waiting, self._waiting = self._waiting, []
        try:
            writing = self._database.submit(lambda c: self._apply(c, items))
        except errors.MsearchError as error:
            _fail(waiting, error)
            return
        writing.add_done_callback(lambda done: self._written(done, waiting))

    def _written(self, done: asyncio.Future[Sequence[R]], waiting: Sequence[asyncio.Future[R]]) -> None:
        error = errors.RetryLater("the database is closing") if done.cancelled() else done.exception()
        if error is not None:
            _fail(waiting, error)
            return
        for future, result in zip(waiting, done.result(), strict=True):
            if not future.done():  # else its caller was cancelled; the effect stands
                future.set_result(result)
        self._then()


def _fail(waiting: Sequence[asyncio.Future[R]], error: BaseException) -> None:
    for future in waiting:
        if not future.done():
            future.set_exception(error)
