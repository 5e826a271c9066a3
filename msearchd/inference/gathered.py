"""Rows as they come back from a worker, batch by batch, put into the order of the samples.

In: frames of an embed answer. Out: Vectors. Never copies a row before all of them are there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, NamedTuple

from msearchd import errors
from msearchd.aio.child import Reply
from msearchd.domain.space import Vectors, vectors_class


class Form(NamedTuple):
    """What a worker's rows are, as its facts and the plan of each answer tell."""

    dim: int = 0
    is_sparse: bool = False

    @classmethod
    def told(cls, args: Mapping[str, Any]) -> Form:
        """Out of facts or a plan."""
        return cls(int(args["dim"]), bool(args.get("sparse", False)))


class Gathered:
    """Rows of *count* samples that arrive in any order, one row each or many."""

    def __init__(self, count: int) -> None:
        self._rows: list[bytes | memoryview] = [b""] * count
        self._counts: list[int] | None = None
        self._costs = [0] * count

    def place(self, index: int, rows: memoryview, *, count: int | None, cost: int = 0) -> None:
        """Put a sample's rows in its place; *count* rows, or None for the one row of a single vector."""
        self._rows[index] = rows
        self._costs[index] = cost
        if count is not None:
            if self._counts is None:
                self._counts = [0] * len(self._rows)
            self._counts[index] = count

    def vectors(self, form: Form) -> Vectors:
        """All rows in the order of the samples."""
        data = b"".join(self._rows)
        counts = None if self._counts is None else tuple(self._counts)
        if form.is_sparse:
            counts = counts or (0,) * len(self._rows)
            count = sum(counts)
        else:
            count = len(data) // (4 * form.dim) if form.dim else 0
        return vectors_class(is_sparse=form.is_sparse)(data, count, form.dim, counts, tuple(self._costs))


def each_item(reply: Reply) -> Iterator[tuple[int, memoryview, int | None, int]]:
    """Index, rows, row count (None: a single vector) and cost of each sample of a frame."""
    rows: list[int] = reply.args.get("rows", [])
    counts: list[int] | None = reply.args.get("counts")
    each = counts if counts is not None else [1] * len(rows)
    size = len(reply.body) // max(1, sum(each))
    body, start = memoryview(reply.body), 0
    costs: list[int] = reply.args.get("costs") or [0] * len(rows)
    for index, count, cost in zip(rows, each, costs, strict=True):
        yield index, body[start * size : (start + count) * size], None if counts is None else count, cost
        start += count


async def whole_answer(
    frames: AsyncIterator[Reply], *, count: int, form: Form, told: Callable[[Mapping[str, Any]], None]
) -> Vectors:
    """The rows of all *count* samples of one request; *told* hears each frame's header.

    Raises BadAsset that names the sample that cannot be embedded, RetryLater where one alone does not fit in memory.
    """
    gathered = Gathered(count)
    async for reply in frames:
        told(reply.args)
        if failed := reply.args.get("failed"):
            reason = str(reply.args.get("reason", ""))
            if failed == "memory":
                message = f"not enough memory to embed one text: {reason}"
                raise errors.RetryLater(message, after_s=30.0, hint="free memory")
            raise errors.BadAsset(f"passage {reply.args['rows'][0]} of {count} cannot be embedded: {reason}")
        for index, rows, own, cost in each_item(reply):
            gathered.place(index, rows, count=own, cost=cost)
    return gathered.vectors(form)
