"""Fuses ranked lists by weighted reciprocal rank, file by file.

In: lists of places in files, each best first. Out: files, best first. Pure; knows ranks, never compares raw scores of
different lists (the spaces of two models have nothing in common but order).

    score(file) = sum over lists of weight * strength / (k + rank of the file in the list)

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
SIGIR 2009, with k = 60 for long lists of web pages; k = 10 suits folders, where one or two files are meant (measured by
Qdrant for its hybrid search, 2026: 2 to 20). Done here and not in the store, because stores differ in ties and weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from msearchd.domain.query import ListRank

#: What the n-th further place of a file in one list adds: a tenth of the one before. All of them together add at most
#: a ninth, so many middling places never beat one good one.
FURTHER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Entry:
    """A place that a list ranked. `place` is None where the file itself was ranked (by its name)."""

    file: int
    place: tuple[str, int] | None
    score: float
    #: How much of the question the list found there, around 1: vague matches must not count like sure ones.
    strength: float = 1.0
    is_exact: bool = False


@dataclass(frozen=True, slots=True)
class RankedList:
    """One list, best first."""

    name: str
    weight: float
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Fused:
    """A file with the reasons for its rank. `place`: its best place; None if only its name was ranked."""

    file: int
    score: float
    is_exact: bool
    place: tuple[str, int] | None
    ranks: tuple[ListRank, ...]


@dataclass(slots=True)
class _Tally:
    shares: list[float] = field(default_factory=list)
    places: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    ranks: list[ListRank] = field(default_factory=list)
    is_exact: bool = False


def fuse(lists: Sequence[RankedList], *, k: float) -> list[Fused]:
    """Files of all lists, best first: exact names before all others, then by score, ties by file.

    The order of the lists does not matter. A list of weight 0 says nothing, not even which files there are.
    """
    tallies: dict[int, _Tally] = {}
    for ranked in lists:
        if ranked.weight > 0:
            _count(ranked, k, tallies)
    fused = [
        Fused(
            file,
            math.fsum(tally.shares),
            tally.is_exact,
            _best_place(tally),
            tuple(sorted(tally.ranks, key=lambda rank: (rank.rank, rank.list))),
        )
        for file, tally in tallies.items()
    ]
    fused.sort(key=lambda one: (not one.is_exact, -one.score, one.file))
    return fused


def _count(ranked: RankedList, k: float, tallies: dict[int, _Tally]) -> None:
    seen: dict[int, int] = {}  # file: its places so far in this list
    for entry in ranked.entries:
        tally = tallies.setdefault(entry.file, _Tally())
        earlier = seen.get(entry.file, 0)
        seen[entry.file] = earlier + 1
        rank = len(seen)  # among files: a book with fifty places does not push others down
        if not earlier:
            tally.ranks.append(ListRank(ranked.name, rank, entry.score))
        share = ranked.weight * entry.strength / (k + rank)
        tally.shares.append(share * FURTHER**earlier)
        tally.is_exact = tally.is_exact or entry.is_exact
        if entry.place is not None:
            tally.places.setdefault(entry.place, []).append(share * FURTHER**earlier)


def _best_place(tally: _Tally) -> tuple[str, int] | None:
    if not tally.places:
        return None
    return min(tally.places, key=lambda place: (-math.fsum(tally.places[place]), place))
