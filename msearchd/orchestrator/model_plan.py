"""What happens to the vector spaces of one modality when its model changes: a pure plan.

In: where each space stands, the space that the settings ask for, the policy, `now`. Out: moves. Never touches disk, queue or
clock.

    nothing answers yet                    the wanted space serves, and is filled
    another one answers                    the wanted one waits for a yes; little work needs none; then it is built beside
    it holds all that the other shows      the two change places in one transaction; the other is kept for a way back
    the other cannot be asked any more     the wanted one serves at once with what it has; much work still waits for a yes
    the settings changed their mind        what was begun is kept like one that served, and goes when its time is over
    somebody went back, or said no         nothing begins again by itself
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from msearchd.domain.space import SpaceName
from msearchd.store.catalog.space_book import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceState:
    """A space as the plan sees it."""

    name: SpaceName
    phase: Phase
    is_askable: bool  # its model can embed questions
    is_filling: bool  # what it lacks is being embedded
    is_covering: bool = False  # it holds all that the serving one shows
    owed: int = 0  # samples that it lacks
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`auto_samples`: so much work begins unasked; -1: any. `keep_ms`: how long replaced spaces are kept."""

    auto_samples: int
    keep_ms: int

    def may_begin(self, samples: int) -> bool:
        """True where so much work needs nobody's yes."""
        return self.auto_samples < 0 or samples <= self.auto_samples


class Act(enum.StrEnum):
    """What is done to one space."""

    SERVE = "serve"  # it answers; what answered is kept
    BUILD = "build"  # fill it beside the one that answers
    FILL = "fill"  # it answers already: embed what it lacks
    WAIT = "wait"  # for a yes
    KEEP = "keep"  # it is not wanted any more
    DROP = "drop"  # its time is over


@dataclass(frozen=True, slots=True)
class Move:
    """One act on one space."""

    act: Act
    space: SpaceName


def plan_change(
    states: Sequence[SpaceState], *, wanted: SpaceName | None, policy: Policy, now_ms: int
) -> tuple[Move, ...]:
    """The moves to make now; () where all is as it should be. Made, the plan of the result is asked for again.

    Never drops or retires the one that serves unless another serves from the same move on. *wanted* None: the settings'
    model is missing or switched off, so nothing changes but that old spaces go.
    """
    serving = next((state for state in states if state.phase is Phase.SERVING), None)
    target = next((state for state in states if state.name == wanted), None)
    moves = [
        Move(Act.DROP, state.name)
        for state in states
        if state.phase is Phase.KEPT and state is not target and now_ms - state.since_ms >= policy.keep_ms
    ]
    if target is None:
        return tuple(moves)
    moves += [
        Move(Act.KEEP, state.name)
        for state in states
        if state is not target and state.phase in {Phase.WAITING, Phase.BUILDING, Phase.DECLINED}
    ]
    return (*moves, *_towards(target, serving, policy))


def _towards(target: SpaceState, serving: SpaceState | None, policy: Policy) -> tuple[Move, ...]:
    if target.phase is Phase.SERVING:
        may_fill = not target.is_filling and policy.may_begin(target.owed)
        return (Move(Act.FILL, target.name),) if may_fill else ()
    if target.phase is Phase.DECLINED:
        return ()
    if serving is None or not serving.is_askable:
        return (Move(Act.SERVE, target.name),)
    if target.phase is Phase.KEPT:
        return (Move(Act.WAIT, target.name),)
    if target.phase is Phase.WAITING:
        return (Move(Act.BUILD, target.name),) if policy.may_begin(target.owed) else ()
    return (Move(Act.SERVE, target.name),) if target.is_covering else ()
