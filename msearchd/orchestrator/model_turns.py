"""Whose turn it is among models that do not fit into memory together. `plan_turns` is pure; `ModelTurns` keeps the books.

In: which models have the turn, which want it, which fit together, `now`. Out: who may claim jobs. The jobs of one model
are drained before the next one is loaded; a turn ends early when nothing is left to do, and while others wait it ends
after `turn_s`, so that nobody starves: whoever wants the turn gets it after those who wanted it before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msearchd.domain.space import ModelKey


@dataclass(frozen=True, slots=True)
class Turn:
    """A model that may claim jobs, or that ends the ones it has (`is_over`). Seconds of one monotonic clock."""

    since_s: float
    is_busy: bool = True
    is_over: bool = False


class Models(Protocol):
    """What the turns ask of the pool."""

    def fit_together(self, models: Collection[ModelKey]) -> bool:
        """True where all of *models* can be loaded at the same time."""
        ...

    def turn_s(self) -> float:
        """How long a turn lasts while others wait (seconds)."""
        ...


def plan_turns(
    turns: Mapping[ModelKey, Turn],
    wanting: Sequence[ModelKey],
    *,
    fit_together: Callable[[Collection[ModelKey]], bool],
    now_s: float,
    turn_s: float,
) -> dict[ModelKey, Turn]:
    """The turns from now on: *wanting*, the longest waiting first, come in where they fit.

    Where the first of them does not, idle models end their turn at once, and busy ones once it has lasted *turn_s*: they
    claim no more. Nobody behind one who does not fit comes in before it. One model alone always fits.
    """
    planned = dict(turns)
    for model in wanting:
        if not planned or fit_together([*planned, model]):
            planned[model] = Turn(now_s)
            continue
        for other in sorted(planned, key=lambda one: planned[one].since_s):
            turn = planned[other]
            if not turn.is_busy:
                del planned[other]
            elif now_s - turn.since_s >= turn_s:
                planned[other] = Turn(turn.since_s, is_over=True)
            if not planned or fit_together([*planned, model]):
                planned[model] = Turn(now_s)
                break
        else:
            return planned
    return planned


class ModelTurns:
    """The books, used by the dispatcher's lanes on one loop. A model that never asked has no turn."""

    def __init__(self, models: Models, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._models = models
        self._now_s = now_s
        self._turns: dict[ModelKey, Turn] = {}
        self._wanting: dict[ModelKey, asyncio.Future[None]] = {}  # oldest first

    def may_claim(self, model: ModelKey) -> bool:
        """True while it is *model*'s turn."""
        if self._wanting:
            self._plan()
        turn = self._turns.get(model)
        return turn is not None and not turn.is_over

    def note_busy(self, model: ModelKey, *, is_busy: bool) -> None:
        """Tell that *model* has jobs in hand now, or has none left."""
        turn = self._turns.get(model)
        if turn is None:
            return
        if turn.is_over and not is_busy:
            del self._turns[model]
        elif turn.is_busy != is_busy:
            self._turns[model] = Turn(turn.since_s if self._wanting else self._now_s(), is_busy, turn.is_over)
        if not is_busy and self._wanting:
            self._plan()

    async def wait_turn(self, model: ModelKey) -> None:
        """Return once it is *model*'s turn. For callers with a job to claim."""
        if model not in self._wanting:
            self._wanting[model] = asyncio.get_running_loop().create_future()
        mine = self._wanting[model]
        try:
            self._plan()
            while not mine.done():
                # A turn that is over by time alone, or memory that came free, is told by nobody.
                await asyncio.wait([mine], timeout=1.0)
                self._plan()
        finally:
            self._wanting.pop(model, None)

    def _plan(self) -> None:
        wanting = [model for model, told in self._wanting.items() if not told.done()]
        self._turns = plan_turns(
            self._turns,
            wanting,
            fit_together=self._models.fit_together,
            now_s=self._now_s(),
            turn_s=self._models.turn_s(),
        )
        for model in wanting:
            if model in self._turns:
                self._wanting[model].set_result(None)
