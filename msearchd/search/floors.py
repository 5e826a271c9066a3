"""How near meaningless words come to this index: below that, likeness alone says nothing.

In: a space with points. Out: a level, learned by asking it 32 made-up words and looking how near the nearest passage is each
time. So it knows the model, and how much there is to be near to by chance. Learned when it is first needed, again once the
space has twice or half as many points; kept in memory.

A similarity alone cannot tell nonsense: made-up words are nearer to a folder of source code (0.24 to 0.46, MiniLM) than many
a good question is to its answer (0.22 to 0.68; docs/BENCHMARKS.md). So a level marks hits only where no word of the question
is known, and it never takes one away.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from msearchd import errors
from msearchd.domain.space import SpaceName, Vectors
from msearchd.inference.pool import Role
from msearchd.search.asker import Asked, Questions
from msearchd.search.lists import Answer
from msearchd.store.catalog import Catalog
from msearchd.store.vector_store import VectorSearch, VectorStore

_PROBES_OF_EACH_LENGTH: Final = 8
_MOST_WORDS: Final = 4
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiou"
#: Two standard deviations: one in forty meaningless questions comes nearer.
_SPREADS: Final = 2.0
_GROWTH: Final = 2.0


def probes() -> tuple[str, ...]:
    """Made-up questions of one to four words, sayable and not; the same ones on every machine. Pure."""
    chance = random.Random(1906)  # noqa: S311 - the same words everywhere, not secret ones
    return tuple(
        " ".join(_sayable(chance) if chance.random() < 0.5 else _unsayable(chance) for _ in range(words))
        for words in range(1, _MOST_WORDS + 1)
        for _ in range(_PROBES_OF_EACH_LENGTH)
    )


def _sayable(chance: random.Random) -> str:
    syllables = (chance.choice(_CONSONANTS) + chance.choice(_VOWELS) for _ in range(chance.randint(2, 3)))
    return "".join(syllables) + chance.choice(_CONSONANTS)


def _unsayable(chance: random.Random) -> str:
    return "".join(chance.choice(_CONSONANTS) for _ in range(chance.randint(4, 8)))


def floor_of(levels: Sequence[float]) -> float:
    """The level that meaningless questions with these best levels seldom exceed; -inf where nothing was found. Pure."""
    if len(levels) < 2:
        return float("-inf")
    return statistics.fmean(levels) + _SPREADS * statistics.stdev(levels)


def level_of(score: float, vectors: Vectors) -> float:
    """A score on one scale for short and long questions: of a multi-vector question it is a sum over its rows. Pure."""
    return score / max(1, vectors.count) if vectors.rows is not None else score


@dataclass(frozen=True, slots=True)
class _Learned:
    floor: float
    points: int


class Floors:
    """Learned levels by space. Shared by all searches."""

    def __init__(self, catalog: Catalog, store: VectorStore, questions: Questions) -> None:
        self._catalog = catalog
        self._store = store
        self._questions = questions
        self._learned: dict[SpaceName, _Learned] = {}
        self._learning: dict[SpaceName, asyncio.Task[_Learned]] = {}

    async def of(self, modality: str, asked: Asked) -> float:
        """The level of the space that was asked, which is that of *modality*. Raises as the model and the store do.

        Cancelled, the learning goes on: a slow model has learned by the next question.
        """
        name = asked.space.name
        points = await self._catalog.expected_points(name)
        known = self._learned.get(name)
        if known is None or not points / _GROWTH <= known.points <= points * _GROWTH:
            if name not in self._learning:
                self._learning[name] = asyncio.create_task(self._learn(modality, name, points), name=f"level:{name}")
                self._learning[name].add_done_callback(partial(self._end_learning, name))
            known = await asyncio.shield(self._learning[name])
        return known.floor

    async def marked(self, answers: Sequence[Answer], *, limit_s: float) -> list[Answer]:
        """*answers* to a question none of whose words is known, with what is no nearer than chance marked as weak.

        Where a level cannot be learned now (a model or the store is away, or needs longer than *limit_s*) nothing is marked.
        """
        try:
            async with asyncio.timeout(limit_s):
                return [await self._marked(answer) for answer in answers]
        except TimeoutError:
            return list(answers)

    async def _marked(self, answer: Answer) -> Answer:
        if answer.near is None or not answer.entries:
            return answer
        modality, asked = answer.near
        try:
            floor = await self.of(modality, asked)
        except errors.MsearchError:
            return answer
        [vector] = asked.vectors
        entries = [replace(entry, is_weak=level_of(entry.score, vector) <= floor) for entry in answer.entries]
        return replace(answer, entries=tuple(entries))

    async def _learn(self, modality: str, name: SpaceName, points: int) -> _Learned:
        asked = await self._questions.ask(modality, probes(), role=Role.QUERY)
        if asked is None or asked.space.name != name:  # switched meanwhile: the next search learns
            return _Learned(float("-inf"), points)
        answers = await self._store.search([VectorSearch(name, vector, 1) for vector in asked.vectors])
        levels = [
            level_of(found[0].score, vector) for found, vector in zip(answers, asked.vectors, strict=True) if found
        ]
        self._learned[name] = _Learned(floor_of(levels), points)
        return self._learned[name]

    def _end_learning(self, name: SpaceName, task: asyncio.Task[_Learned]) -> None:
        del self._learning[name]
        if not task.cancelled():
            task.exception()  # whoever waited has heard it; where nobody did, the next question learns
