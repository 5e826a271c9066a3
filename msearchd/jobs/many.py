"""One statement for many rows. SQLite spends more on beginning and ending a statement than on a row of it.

In: a connection inside a transaction, rows. Out: the same as of one statement after the other, for 0.4 to 0.7 of their CPU.
The statements are those of queries.sql, repeated in fixed sizes, so that each is compiled once.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msearchd.aio.sqlite import named_queries

_SQL: Final = named_queries("msearchd.jobs.sql")

#: Rows in one statement. What is left over goes by smaller ones, at last one by one; more than 64 gain nothing.
_SIZES: Final = (64, 8)

#: asset, step, target, priority.
OwedRow = tuple[int, str, str, int]
#: asset, step, target, outcome, attempts, error, when it ended (UTC, milliseconds).
EndedRow = tuple[int, str, str, str, int, str, int]


def enqueue(c: sqlite3.Connection, rows: Sequence[OwedRow], *, now_ms: int) -> None:
    """Owe *rows*, in order: the first of them is the first in the line. One asset and step may stand there twice."""
    for group in _groups(rows):
        c.execute(_enqueue(len(group)), [now_ms, *itertools.chain.from_iterable(group)])


def complete(c: sqlite3.Connection, attempts: Sequence[tuple[int, int]]) -> set[int]:
    """Delete the running jobs *attempts*, each an (id, generation); return the ids of those that were still as claimed."""
    found: set[int] = set()
    for group in _groups(attempts):
        found.update(
            row[0] for row in c.execute(_complete(len(group)), [*itertools.chain.from_iterable(group)]).fetchall()
        )
    return found


def remember(c: sqlite3.Connection, rows: Sequence[EndedRow]) -> int:
    """Note how attempts ended, in order; return the number of the last row."""
    last = 0
    for group in _groups(rows):
        last = c.execute(_remember(len(group)), [*itertools.chain.from_iterable(group)]).lastrowid or last
    return last


def _groups(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    at = 0
    for size in (*_SIZES, 1):
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


@functools.cache
def _enqueue(rows: int) -> str:
    head, _, tail = _SQL["enqueue"].partition("VALUES")
    values = ", ".join(f"(?{n}, ?{n + 1}, ?{n + 2}, ?{n + 3}, 'ready', 1, ?1, ?1)" for n in range(2, 2 + 4 * rows, 4))
    return f"{head}VALUES {values}\nON CONFLICT{tail.partition('ON CONFLICT')[2]}"


@functools.cache
def _complete(attempts: int) -> str:
    # By CASE, not `(id, generation) IN (VALUES ...)`: that reads every running job.
    pairs = [(2 * n + 1, 2 * n + 2) for n in range(attempts)]
    ids = ", ".join(f"?{id_}" for id_, _ in pairs)
    generations = " ".join(f"WHEN ?{id_} THEN ?{generation}" for id_, generation in pairs)
    return f"DELETE FROM job WHERE id IN ({ids}) AND state = 'running' AND generation = CASE id {generations} END RETURNING id"  # noqa: S608 - no values in it


@functools.cache
def _remember(rows: int) -> str:
    head, _, _ = _SQL["remember"].partition("VALUES")
    return f"{head}VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?)'] * rows)}"
