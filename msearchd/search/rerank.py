"""The best passages compared with the question once more, by a model that reads both together. Off by default.

In: hits in their order, some with a passage, and scores. Out: the same hits in another order. Pure but for `Rerank`.
Nogueira and Cho, "Passage Re-ranking with BERT", 2019. It beats tuned fusion on some collections and not on others, and
costs a forward pass a passage: that is why it has to be asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msearchd.domain.query import Hit, ListRank

#: (question, passages) to relevance of each passage, 0 to 1.
Rerank = Callable[[str, Sequence[str]], Awaitable[tuple[float, ...]]]
LIST: Final = "rerank"


@dataclass(frozen=True, slots=True)
class Shown:
    """A hit and the whole passage that it shows; `is_exact`: its name is the question, which no model can better."""

    hit: Hit
    passage: str = ""
    is_exact: bool = False


def comparable(shown: Sequence[Shown], *, at_most: int) -> list[int]:
    """Places of the hits that have a passage to compare, the best *at_most*."""
    return [place for place, one in enumerate(shown) if one.passage.strip() and not one.is_exact][:at_most]


def reordered(shown: Sequence[Shown], scores: Mapping[int, float]) -> list[Hit]:
    """The hits whose places have *scores* take those places by score; all others (pictures, names) stay where they are.

    Ties keep their order. Each compared hit says so among its ranks.
    """
    best_first = sorted(scores, key=lambda place: (-scores[place], place))
    hits = [one.hit for one in shown]
    for rank, (place, source) in enumerate(zip(sorted(scores), best_first, strict=True), 1):
        hit = shown[source].hit
        hits[place] = replace(hit, ranks=(*hit.ranks, ListRank(LIST, rank, scores[source])))
    return hits
