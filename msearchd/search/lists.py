"""The ranked lists of one question: asked all at once, each with its time, and how each fared.

In: what to ask, and for how long. Out: an Answer for each, in order; one that failed or is late says so. A list whose model
is not loaded yet ("cold") is waited for only where the others found nothing: whoever searches wants hits, not a loaded model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msearchd import errors
from msearchd.domain.asset import AssetId
from msearchd.search.asker import Asked
from msearchd.search.fusion import Entry

#: How long a cold list is waited for where others found something: a model that comes from a fork server makes it.
PATIENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ListReport:
    """One list's part in an answer. `error`: why it did not answer; empty if it did.

    `loading_s`: its model still loads, so many seconds more (0: nobody knows); None where that is not the reason.
    """

    name: str
    candidates: int
    took_ms: float
    error: str = ""
    loading_s: float | None = None

    @property
    def sentence(self) -> str:
        """What the whole answer lacks for it; "" if nothing."""
        if self.loading_s is not None:
            return f"these are the hits without the list of {self.name}: {self.error}"
        return f"the list of {self.name} is missing: {self.error}" if self.error else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a list found, best first, and how much it counts."""

    report: ListReport
    entries: tuple[Entry, ...] = ()
    weight: float = 0.0
    #: Files that were ranked by name: which asset it was.
    assets: tuple[tuple[int, AssetId], ...] = ()
    #: Of a list of near vectors: the modality, and the question as it was asked.
    near: tuple[str, Asked] | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A list to ask. `loading_s` is None where its model is loaded (or it has none), else what loading takes yet."""

    name: str
    ask: Callable[[], Awaitable[Answer]]
    loading_s: float | None = None


async def gathered(asks: Sequence[Ask], *, limit_s: float, wait_s: float | None = None) -> list[Answer]:
    """The answers of all, none later than *limit_s*.

    Cold ones: not later than *wait_s* where that is given, else than PATIENCE_S where a warm one found something.
    What is no error of ours is raised. Cancelled, or on an error, no list is left at work; a model that loads goes on.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    cold_limit_s = limit_s if wait_s is None else wait_s
    tasks = [
        asyncio.create_task(_in_time(one, limit_s if one.loading_s is None else cold_limit_s), name=f"list:{one.name}")
        for one in asks
    ]
    cold = [task for task, one in zip(tasks, asks, strict=True) if one.loading_s is not None]
    try:
        found = await asyncio.gather(*(task for task in tasks if task not in cold))
        if cold:
            hurry = wait_s is None and any(answer.entries for answer in found)
            await asyncio.wait(cold, timeout=max(0.0, began + PATIENCE_S - loop.time()) if hurry else None)
        return [
            task.result() if task.done() else Answer(late(one.name, one.loading_s, took_s=loop.time() - began))
            for task, one in zip(tasks, asks, strict=True)
        ]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _in_time(one: Ask, limit_s: float) -> Answer:
    """The list's answer, or a report of why there is none."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(limit_s):
            return await one.ask()
    except TimeoutError:
        if one.loading_s is not None:
            return Answer(late(one.name, one.loading_s, took_s=limit_s))
        return Answer(failed(one.name, began, f"no answer within {limit_s:g} s"))
    except errors.MsearchError as error:
        return Answer(failed(one.name, began, error.sentence()))


def late(name: str, loading_s: float | None, *, took_s: float) -> ListReport:
    """A list whose model still loads, which takes *loading_s* from the question on."""
    left_s = max(0.0, (loading_s or 0.0) - took_s)
    return ListReport(name, 0, took_s * 1000, "its model still loads, ask again in some seconds", left_s)


def failed(name: str, began: float, reason: str) -> ListReport:
    """A list that has no answer."""
    return ListReport(name, 0, (time.perf_counter() - began) * 1000, reason)


def report(name: str, entries: Sequence[Entry], began: float) -> ListReport:
    """A list that answered."""
    return ListReport(name, len(entries), (time.perf_counter() - began) * 1000)
