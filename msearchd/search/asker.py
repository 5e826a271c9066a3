"""Questions as vectors: which spaces a question can be asked in, and what it is there.

In: samples (a text, pictures, windows of sound, passages) and a modality. Out: the space that answers for it, and a vector
for each sample. Never makes a space; a model that cannot run says why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from msearchd import errors
from msearchd.domain.sample import Sample
from msearchd.domain.space import ModelKey, Space, Vectors
from msearchd.inference.pool import Lane, Pool, Role
from msearchd.store.catalog import Catalog

#: The list of a sparse model: words that it found in a text or would have expected there. Its space's name says less.
LEARNED: Final = "learned words"
#: Modalities whose models know texts too, with the name of their list where it has no space's name.
BESIDE_TEXT: Final = {"sparse": LEARNED, "image": "pictures", "audio": "sounds", "page": "pages"}
#: States of a model that answers only after it was loaded.
_NOT_YET: Final = frozenset({"unloaded", "loading"})
#: Which setting names the model of a modality.
_SETTING: Final = {modality: f"{modality}_model" for modality in ("text", *BESIDE_TEXT)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in one space: nearest is what is near to any of *vectors* (each one sample's, several rows if multi)."""

    space: Space
    vectors: tuple[Vectors, ...]


class Questions(Protocol):
    """What the search service asks of an Asker."""

    async def modalities(self) -> tuple[str, ...]: ...  # noqa: D102 - see Asker
    async def ask(self, modality: str, samples: Sequence[Sample], *, role: Role) -> Asked | None: ...  # noqa: D102
    async def loading_s(self, modality: str) -> float | None: ...  # noqa: D102


class Asker:
    """Shared by all searches; owns nothing. *key_of* names the model that answers for a modality, None: switched off.

    *deadline_s* bounds a question whose caller waits for a model to load; who waits less cancels it, and the load goes on.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        pool: Pool,
        key_of: Callable[[str], Awaitable[ModelKey | None]],
        space_of: Callable[[ModelKey], Awaitable[Space]],
        deadline_s: float,
    ) -> None:
        self._catalog = catalog
        self._pool = pool
        self._key_of = key_of
        self._space_of = space_of
        self._deadline_s = deadline_s

    async def modalities(self) -> tuple[str, ...]:
        """Where else than near its own vector a text can be asked for: sparse, image, audio, page, where there is anything."""
        return tuple([modality for modality in BESIDE_TEXT if await self._has_points(modality)])

    async def ask(self, modality: str, samples: Sequence[Sample], *, role: Role) -> Asked | None:
        """*samples* (of one kind) in the space of *modality*; None where it is switched off, or no file is known at all.

        Raises as Pool.embed.
        """
        key = await self._key_of(modality)
        if key is None or await self._is_empty(modality):
            return None
        space = await self._space_of(key)
        vectors = await self._pool.embed(
            samples, model=key, role=role, lane=Lane.INTERACTIVE, deadline_s=self._deadline_s
        )
        return Asked(space, tuple(each(vectors)))

    async def loading_s(self, modality: str) -> float | None:
        """How long its model takes until it can be asked, as far as is known (0: not known). None: no wait, or no model."""
        key = await self._key_of(modality)
        if key is None or await self._is_empty(modality):
            return None
        return model_loading_s(self._pool, key)

    async def needed(self, modality: str) -> None:
        """Raise Misconfigured where nothing embeds *modality*."""
        if await self._key_of(modality) is None:
            message = f"no model for {BESIDE_TEXT.get(modality, 'texts')} is named in the settings"
            key = f"inference.{_SETTING[modality]}"
            raise errors.Misconfigured(message, key=key, hint=f"name one as {_SETTING[modality]} under [inference]")

    async def has(self, modality: str) -> bool:
        """True where a model embeds *modality*."""
        return await self._key_of(modality) is not None

    async def _is_empty(self, modality: str) -> bool:
        """True where there is nothing to find: no model is loaded for that. What is pending or blocked counts as something."""
        if await self._has_points(modality):
            return False
        return not any(sum(states.values()) for states in (await self._catalog.counts()).values())

    async def _has_points(self, modality: str) -> bool:
        if await self._key_of(modality) is None:
            return False
        space = await self._catalog.active_space(modality)
        return space is not None and await self._catalog.expected_points(space.name) > 0


def model_loading_s(pool: Pool, key: ModelKey) -> float | None:
    """What loading *key* takes, as far as is known (0: not known); None where it is loaded, or never will be."""
    status = next((one for one in pool.snapshot().models if one.name == key), None)
    return status.load_s if status is not None and status.state in _NOT_YET else None


def each(vectors: Vectors) -> list[Vectors]:
    """One Vectors for each sample: a row, all rows of a multi-vector, or all entries of a sparse one. Pure."""
    if vectors.rows is None:
        return [vectors.part(index, 1) for index in range(vectors.count)]
    found, at = [], 0
    for count in vectors.rows:
        found.append(vectors.part(at, count, rows=(count,)))
        at += count
    return found
