"""What waits and travels to a worker: calls, their passages, and the windows that these share. Values with one owner.

In: a caller's samples. Out: their rows, placed as they come, whichever worker they come from.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Iterator
from dataclasses import dataclass, field

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.domain.space import Vectors
from msearchd.inference.gathered import Form, Gathered
from msearchd.inference.parcel import Group


@dataclass(slots=True, eq=False)
class Call:
    """One caller: its samples' rows fill up in any order."""

    group: Group
    count: int
    done: asyncio.Future[Vectors]
    left: int
    rows: Gathered = field(init=False)

    def __post_init__(self) -> None:
        self.rows = Gathered(self.count)

    def place(self, index: int, rows: memoryview, *, count: int | None, cost: int, form: Form) -> None:
        """Put the rows of sample *index* in; with the last one the caller is answered. Once a sample."""
        self.rows.place(index, rows, count=count, cost=cost)
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(self.rows.vectors(form))

    def fail(self, error: errors.MsearchError) -> None:
        """Answer the caller with *error*, unless it was answered."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True, eq=False)
class Passage:
    """A sample that waits or travels; `passages` counts them, whatever their kind."""

    call: Call
    index: int
    sample: Sample
    cost: int
    size_bytes: int
    crashes: int = 0
    shortages: int = 0


@dataclass(slots=True, eq=False)
class Window:
    """One request. Of two in flight only the older is at work: the other is innocent of a crash. `was_moved`: it came from
    another copy of the model, and goes to no third one.
    """

    passages: list[Passage]
    is_suspect: bool = False
    wants_fresh_worker: bool = False
    is_innocent: bool = False
    was_moved: bool = False
    plan: list[list[int]] = field(default_factory=list)
    form: Form = field(default_factory=Form)
    answered: set[int] = field(default_factory=set)

    def rest(self) -> Window:
        """A window of what was not answered yet."""
        return Window(self.open_passages(), is_suspect=self.is_suspect)

    def open_passages(self) -> list[Passage]:
        """What was not answered yet, in order."""
        return [passage for index, passage in enumerate(self.passages) if index not in self.answered]


def while_group(passages: collections.deque[Passage], group: Group) -> Iterator[Passage]:
    """The first of *passages* that can travel together, as all are of *group*."""
    for passage in passages:
        if passage.call.group != group:
            return
        yield passage


def poison(passage: Passage, reason: str) -> errors.BadAsset:
    """What the caller of a passage hears that cannot be embedded, by whatever *reason*."""
    return errors.BadAsset(
        f"passage {passage.index} of {passage.call.count} cannot be embedded: {reason}",
        hint="its neighbours in other files are not touched",
    )
