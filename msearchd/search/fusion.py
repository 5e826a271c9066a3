"""Fuses ranked lists by weighted reciprocal rank, file by file.

In: lists of places in files, each best first. Out: files, best first. Pure; knows ranks, never compares raw scores of
different lists (the spaces of two models have nothing in common but order).

    score(file) = sum over lists of weight * strength / (k + rank of the file in the list)

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
SIGIR 2009, with k = 60 for long lists of web pages; k = 10 suits folders, where one or two files are meant (measured by
Qdrant for its hybrid search, 2026: 2 to 20). Done here and not in the store, because stores differ in ties and weights.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msearchd.domain.query import ListRank

#: What the n-th further place of a file in one list adds: a tenth of the one before. All of them together add at most
#: a ninth, so many middling places never beat one good one.
FURTHER: Final = 0.1


#: Kind and number of a segment within its file.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A place that a list ranked. `place` is None where the file itself was ranked (by its name)."""

    file: int
    place: Place | None
    score: float
    #: How much of the question the list found there, around 1: vague matches must not count like sure ones.
    strength: float = 1.0
    is_exact: bool = False
    is_weak: bool = False  # no nearer than meaningless words are; says nothing about its rank


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
    place: Place | None
    ranks: tuple[ListRank, ...]


def fuse(lists: Sequence[RankedList], *, k: float, limit: int | None = None) -> list[Fused]:
    """The *limit* best files of all lists, best first: exact names before all others, then by score, ties by file.

    The order of the lists does not matter. A list of weight 0 says nothing, not even which files there are.
    """
    lists = [ranked for ranked in lists if ranked.weight > 0]
    shares: dict[int, list[float]] = {}
    exact: set[int] = set()
    for ranked in lists:
        _count(ranked, k, shares, exact)
    order = ((file not in exact, -math.fsum(share), file) for file, share in shares.items())
    best = sorted(order) if limit is None else heapq.nsmallest(limit, order)
    reasons = _reasons(lists, k, {file for _, _, file in best})
    return [Fused(file, -score, not is_other, *reasons[file]) for is_other, score, file in best]


def _count(ranked: RankedList, k: float, shares: dict[int, list[float]], exact: set[int]) -> None:
    """Add what the list gives to each file."""
    seen: dict[int, int] = {}  # file: its places so far in this list
    for entry in ranked.entries:
        file = entry.file
        earlier = seen.get(file, 0)
        seen[file] = earlier + 1
        # The rank counts files: a book with fifty places does not push others down.
        share = ranked.weight * entry.strength / (k + len(seen)) * FURTHER**earlier
        if file in shares:
            shares[file].append(share)
        else:
            shares[file] = [share]
        if entry.is_exact:
            exact.add(file)


def _reasons(
    lists: Sequence[RankedList], k: float, files: set[int]
) -> dict[int, tuple[Place | None, tuple[ListRank, ...]]]:
    """Best place and ranks of some files: the part that only those who are shown need."""
    places: dict[int, dict[Place, list[float]]] = {file: {} for file in files}
    ranks: dict[int, list[ListRank]] = {file: [] for file in files}
    for ranked in lists:
        seen: dict[int, int] = {}
        for entry in ranked.entries:
            earlier = seen.get(entry.file, 0)
            seen[entry.file] = earlier + 1
            if entry.file not in files:
                continue
            if not earlier:
                ranks[entry.file].append(ListRank(ranked.name, len(seen), entry.score))
            if entry.place is not None:
                share = ranked.weight * entry.strength / (k + len(seen)) * FURTHER**earlier
                places[entry.file].setdefault(entry.place, []).append(share)
    return {
        file: (_best(places[file]), tuple(sorted(ranks[file], key=lambda rank: (rank.rank, rank.list))))
        for file in files
    }


def _best(places: dict[Place, list[float]]) -> Place | None:
    return min(places, key=lambda place: (-math.fsum(places[place]), place), default=None)
