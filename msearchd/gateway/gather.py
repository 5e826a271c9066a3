"""Small requests of many callers gathered into calls, so that a hundred clients cost ten batches and not a hundred.

In: texts of one caller at a time. Out: their vectors. An idle model gets a lone request at once, there is no timer: what
arrives while a call is at work makes up the next one. One call per (model, role) is at work; each overtakes the index.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.domain.space import ModelKey, Vectors
from msearchd.inference.pool import Lane, Role

#: Texts of one gathered call: one or two batches, so that whoever comes next waits no longer than that.
_MOST_TEXTS = 16


class Embeds(Protocol):
    """What the gatherer needs of the pool."""

    async def embed(
        self, samples: Sequence[Sample], /, *, model: ModelKey, role: Role, lane: Lane, deadline_s: float
    ) -> Vectors:
        """See Pool.embed."""
        ...


@dataclass(slots=True, eq=False)
class _Request:
    texts: list[str]
    deadline_s: float
    done: asyncio.Future[Vectors]


@dataclass(slots=True, eq=False)
class _Line:
    """Those who wait for one model and role."""

    waiting: collections.deque[_Request] = field(default_factory=collections.deque)
    at_work: list[_Request] = field(default_factory=list)
    call: asyncio.Task[None] | None = None


class Gatherer:
    """Use from one event loop. No line outlives its callers."""

    def __init__(self, pool: Embeds) -> None:
        self._pool = pool
        self._lines: dict[tuple[ModelKey, Role], _Line] = {}

    async def embed(
        self, texts: Sequence[str], *, model: ModelKey, role: Role, lane: Lane, deadline_s: float
    ) -> Vectors:
        """As Pool.embed, sharing calls with others. Cancelled, its texts are dropped unless they are at work."""
        line = self._lines.setdefault((model, role), _Line())
        request = _Request(list(texts), deadline_s, asyncio.get_running_loop().create_future())
        line.waiting.append(request)
        if line.call is None:
            line.call = asyncio.create_task(self._work(line, model, role, lane), name=f"gathered:{model}")
        try:
            async with asyncio.timeout(deadline_s):
                return await request.done
        except TimeoutError as error:
            message = f"model {model!r} did not embed {len(texts)} texts within {deadline_s:g} s"
            raise errors.RetryLater(message, after_s=5.0) from error
        finally:
            request.done.cancel()
            self._give_up_if_alone((model, role), line)

    def _give_up_if_alone(self, key: tuple[ModelKey, Role], line: _Line) -> None:
        """End the call at work where nobody is left to hear its answer. Whoever comes next begins a new line."""
        if line.call is not None and all(one.done.done() for one in (*line.at_work, *line.waiting)):
            line.call.cancel()
            self._forget(key, line)

    def _forget(self, key: tuple[ModelKey, Role], line: _Line) -> None:
        line.call = None
        if self._lines.get(key) is line:
            del self._lines[key]

    async def _work(self, line: _Line, model: ModelKey, role: Role, lane: Lane) -> None:
        try:
            while taken := _taken(line.waiting):
                line.at_work = taken
                await self._answer(taken, model, role, lane)
                line.at_work = []
        finally:
            self._forget((model, role), line)
            stopped = errors.RetryLater("the call was given up")
            for request in (*line.at_work, *line.waiting):
                _fail(request, stopped)

    async def _answer(self, requests: list[_Request], model: ModelKey, role: Role, lane: Lane) -> None:
        """Embed what they ask for in one call; where one text is bad, each request by itself."""
        texts = [text for request in requests for text in request.texts]
        deadline_s = max(request.deadline_s for request in requests)
        try:
            vectors = await self._pool.embed(texts, model=model, role=role, lane=lane, deadline_s=deadline_s)
        except errors.BadAsset as error:
            if len(requests) == 1:
                _fail(requests[0], error)
                return
            for request in requests:
                if not request.done.done():
                    await self._answer([request], model, role, lane)
        except Exception as error:  # noqa: BLE001 - each caller hears it, and meets it as its own
            for request in requests:
                _fail(request, error)
        else:
            _share(vectors, requests)


def _taken(waiting: collections.deque[_Request]) -> list[_Request]:
    """Those who travel together next: the longest waiting, at most _MOST_TEXTS texts (or one request)."""
    taken: list[_Request] = []
    count = 0
    while waiting:
        if waiting[0].done.done():
            waiting.popleft()
            continue
        if taken and count + len(waiting[0].texts) > _MOST_TEXTS:
            break
        taken.append(waiting.popleft())
        count += len(taken[-1].texts)
    return taken


def _share(vectors: Vectors, requests: Sequence[_Request]) -> None:
    """Give each request its rows."""
    data = memoryview(vectors.data).cast("B")
    each = vectors.rows if vectors.rows is not None else (1,) * vectors.count
    item, at = 0, 0
    for request in requests:
        counts = each[item : item + len(request.texts)]
        rows, item = sum(counts), item + len(request.texts)
        part = bytes(data[at * vectors.dim * 4 : (at + rows) * vectors.dim * 4])
        at += rows
        if not request.done.done():
            shape = counts if vectors.rows is not None else None
            costs = vectors.costs[item - len(request.texts) : item]
            request.done.set_result(Vectors(part, rows, vectors.dim, shape, costs))


def _fail(request: _Request, error: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(error)
