"""How large a batch should be: learned per kind from what full batches did. Pure: values in, values out.

In: a batch's padded cost and how long it took, or that it did not fit in memory. Out: the sizes of the next ones.
A walk uphill over sizes 1.5 apart: the size in use and the next one are cut in turns from the same samples, so that long
and short ones fall to both alike, and compared; growing goes on while it pays, then shrinking is tried. No number is
right for two machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

#: An interactive request waits for at most one batch, 0.25 s on a CPU; aimed at a little less, for speed varies.
CPU_BATCH_S: Final = 0.2
_LEAST_COST: Final = 256
QUESTIONS_COST: Final = 512
#: The time limit cuts no smaller batch than this: on a starved core 256 tokens cost 6 to 14 % more each than 512 (bench).
_LEAST_CUT: Final = 512
#: Where nothing was learned yet, and the most that is tried (CPU, accelerator): tokens; 224 x 224 pictures; 10-s sounds.
FIRST_COST: Final = {"text": 2048, "pair": 2048, "image": 8 * 196, "audio": 4 * 1000}
_MOST_CPU: Final = {"text": 8192, "pair": 8192, "image": 64 * 196, "audio": 32 * 1000}
_MOST_DEVICE: Final = {"text": 262_144, "pair": 262_144, "image": 1024 * 196, "audio": 256 * 1000}
#: A size is compared with the next one over this many full batches of each, cut in turns from the same samples.
_ENOUGH: Final = 6
_STEP: Final = 1.5
#: The next size must be this much faster, or it is noise.
_BETTER: Final = 1.02
#: Full batches after which a settled size is put in question again: the machine or the texts may have changed.
_AGAIN_AFTER: Final = 2000


@dataclass(frozen=True, slots=True)
class Tally:
    """What full batches of one size did."""

    batches: int = 0
    cost: int = 0
    effort_s: float = 0.0

    def plus(self, cost: int, effort_s: float) -> Tally:
        """With one more."""
        return Tally(self.batches + 1, self.cost + cost, self.effort_s + effort_s)

    @property
    def rate(self) -> float:
        """Cost units a second."""
        return self.cost / max(self.effort_s, 1e-9)


@dataclass(frozen=True, slots=True)
class Budget:
    """Padded cost of one batch, learned from what happened: a walk uphill over sizes 1.5 apart, never beyond `ceiling`.

    The size in use and the next one are cut in turns from the same samples (`sizes`) and compared; a shortage halves.
    """

    ceiling: int
    cost: int
    max_batch_s: float | None = None  # None: a device where nobody waits for one batch
    cost_per_s: float = 0.0
    rates: int = 0  # batches behind it; those of a warm-up do not count
    shortage_at: float = float("inf")  # cost that did not fit in memory; forgotten slowly
    trial: int = 0  # the size that is compared with `cost`; 0: settled
    turned: bool = False  # growing did not help, shrinking is tried
    at_cost: Tally = Tally()
    at_trial: Tally = Tally()
    settled_batches: int = 0

    def as_learned(self) -> dict[str, float]:
        """What a successor may begin with (`cost`), and what people see: `size` of a batch as it is cut, speed a second."""
        learned = {
            "cost": float(self.cost),
            "size": float(self.for_bulk()),
            "cost_per_s": round(self.cost_per_s, 1),
            "settled": float(not self.trial),
        }
        return learned if self.shortage_at == float("inf") else {**learned, "shortage_at": self.shortage_at}

    def after_warm_up(self) -> Budget:
        """As after the first batches, whose speed is not that of the work to come."""
        return replace(self, rates=0)

    def sizes(self) -> tuple[int, ...]:
        """Padded cost of the next bulk batches, in turns: what fits, and is over in time."""
        return tuple(dict.fromkeys(self._in_time(size) for size in (self.cost, self.trial) if size))

    def for_bulk(self) -> int:
        """Padded cost of a bulk batch."""
        return self._in_time(self.cost)

    def for_questions(self) -> int:
        """Padded cost of a batch of an interactive request, whose few texts are of all lengths.

        On a CPU a smaller one wastes less on padding than a larger one wins: 16 texts of 300 characters cost 0.80 of one
        each alone in batches of 512 tokens, 0.91 at 256, 0.95 at 2048 (MiniLM, one thread). A GPU computes padding for nothing.
        """
        return self.cost if self.max_batch_s is None else min(self.cost, QUESTIONS_COST)

    def _in_time(self, size: int) -> int:
        if self.max_batch_s is None or not self.cost_per_s:
            return size
        return max(min(_LEAST_CUT, size), min(size, int(self.cost_per_s * self.max_batch_s)))

    def after_batch(self, used: int, *, seconds: float, effort_s: float = 0.0, target: int = 0) -> Budget:
        """Learn from a batch of *used* padded cost, cut for *target*, that took *seconds* and was *effort_s* of work."""
        rate = used / max(seconds, 1e-6)
        # Small batches measure overhead, not the device.
        known = self.cost_per_s
        if used >= min(_LEAST_COST, self.cost) or not known:
            share = max(0.2, 1 / (1 + self.rates))
            known += share * (rate - known)
        now = replace(self, cost_per_s=known, rates=self.rates + 1)
        target = target or used
        if used < 0.7 * target:
            return now
        if not self.trial:
            return _rested(now)
        effort_s = effort_s or seconds
        own, other = self._in_time(self.cost), self._in_time(self.trial)
        if target < 0.7 * min(own, other):  # cut for somebody who waits: it tells nothing of either
            return now
        if abs(other - own) < 0.1 * own:  # the time limit cuts both alike: nothing is to be learned
            return _settled(now) if self.turned else _turned(now)
        if abs(target - own) <= abs(target - other):
            now = replace(now, at_cost=self.at_cost.plus(used, effort_s))
        else:
            now = replace(now, at_trial=self.at_trial.plus(used, effort_s))
        return _compared(now) if min(now.at_cost.batches, now.at_trial.batches) >= _ENOUGH else now

    def after_shortage(self, used: int) -> Budget:
        """Learn that *used* padded cost did not fit in memory: half of it is next, and larger ones are tried later."""
        limit = min(self.shortage_at, used)
        cost = max(1, min(self.cost, used // 2))
        return _with_trial(replace(self, cost=cost, shortage_at=limit, turned=False, settled_batches=0), up=True)


def _with_trial(budget: Budget, *, up: bool) -> Budget:
    if up:
        size = int(min(budget.ceiling, budget.cost * _STEP + 1, max(1.0, 0.9 * budget.shortage_at)))
        trial = size if size > budget.cost * 1.1 else 0
    else:
        size = int(budget.cost / _STEP)
        trial = size if size >= _LEAST_COST else 0
    now = replace(budget, trial=trial, at_cost=Tally(), at_trial=Tally())
    return now if trial or budget.turned else _turned(now) if up else now


def _compared(budget: Budget) -> Budget:
    is_better = budget.at_trial.rate > _BETTER * budget.at_cost.rate
    if is_better:
        return _with_trial(replace(budget, cost=budget.trial), up=not budget.turned)
    return _settled(budget) if budget.turned else _turned(budget)


def _turned(budget: Budget) -> Budget:
    return _with_trial(replace(budget, turned=True), up=False)


def _settled(budget: Budget) -> Budget:
    return replace(budget, trial=0, at_cost=Tally(), at_trial=Tally(), settled_batches=0)


def _rested(budget: Budget) -> Budget:
    if budget.settled_batches + 1 < _AGAIN_AFTER:
        return replace(budget, settled_batches=budget.settled_batches + 1)
    again = replace(budget, settled_batches=0, turned=False, shortage_at=budget.shortage_at * _STEP)
    return _with_trial(again, up=True)


def starting_budget(
    kind: str,
    *,
    limit: int = 0,
    first_cost: int = 0,
    learned: Mapping[str, float] | None = None,
    is_cpu: bool,
) -> Budget:
    """The budget of a worker that has not run yet.

    *limit* is what the settings say: that size from the start, and never more (0: find out). Without it, it begins with
    what was *learned* before; smaller (*first_cost*) where its predecessor was killed for its memory.
    """
    max_batch_s = CPU_BATCH_S if is_cpu else None
    if limit:
        return Budget(ceiling=limit, cost=min(limit, first_cost or limit), max_batch_s=max_batch_s, turned=True)
    ceiling = (_MOST_CPU if is_cpu else _MOST_DEVICE)[kind]
    known = learned or {}
    cost = max(1, min(ceiling, int(known.get("cost", 0)) or FIRST_COST[kind]))
    budget = Budget(
        ceiling=ceiling,
        cost=min(cost, first_cost or cost),
        max_batch_s=max_batch_s,
        cost_per_s=max(0.0, known.get("cost_per_s", 0.0)),
        shortage_at=known.get("shortage_at", float("inf")),
    )
    return budget if known.get("settled") and not first_cost else _with_trial(budget, up=True)
