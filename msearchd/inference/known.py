"""Which models of the settings were looked at: their files found, their engines chosen, nothing loaded by that.

In: names. Out: LoadedModel, each with its copies; or why a model cannot be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from msearchd import errors
from msearchd.domain.space import ModelKey
from msearchd.inference.resident import LoadedModel
from msearchd.inference.spec import ModelSpec, model_named, resolve
from msearchd.settings.model import EmbeddingModel, InferenceSettings


class KnownModels:
    """Owned by the pool. *make* makes a model's own copy once its spec is known."""

    def __init__(
        self,
        settings: InferenceSettings,
        *,
        chunking: str,
        state_dir: Path,
        make: Callable[[ModelSpec, EmbeddingModel], LoadedModel],
    ) -> None:
        self._settings = settings
        self._chunking = chunking
        self._state_dir = state_dir
        self._make = make
        self.copies: dict[ModelKey, list[LoadedModel]] = {}  # the first is a model's own, others are copies
        self.reasons: dict[ModelKey, str] = {}  # why a model could not even be resolved
        self._looking: dict[ModelKey, asyncio.Task[None]] = {}

    def all(self) -> list[LoadedModel]:
        """Every copy of every model."""
        return [loaded for copies in self.copies.values() for loaded in copies]

    async def own(self, key: ModelKey) -> LoadedModel:
        """The own copy of *key*, looked for on the disk the first time. Raises Misconfigured."""
        if copies := self.copies.get(key):
            return copies[0]
        model = model_named(self._settings, key)
        try:
            spec = await asyncio.to_thread(
                resolve,
                model,
                allow_download=self._settings.allow_download,
                chunking=self._chunking,
                state_dir=self._state_dir,
            )
        except errors.Misconfigured as error:
            self.reasons[key] = error.sentence()
            raise
        if key not in self.copies:  # another caller may have come first while we looked at the disk
            loaded = self._make(spec, model)
            loaded.copies = self.copies[key] = [loaded]
        self.reasons.pop(key, None)
        return self.copies[key][0]

    def look_at(self, models: Collection[ModelKey]) -> bool:
        """True where all of *models* were looked at; those that were not are from now on, so that a later call knows."""
        unknown = [model for model in models if model not in self.copies and model not in self.reasons]
        for model in unknown:
            if model not in self._looking:
                self._looking[model] = asyncio.create_task(self._look(model), name=f"look:{model}")
        return not unknown

    async def close(self) -> None:
        """Wait for the looks that are under way: a few files each."""
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _look(self, key: ModelKey) -> None:
        try:
            await self.own(key)
        except errors.Misconfigured as error:
            self.reasons[key] = error.sentence()  # one that the settings do not have, too
        except errors.RetryLater:  # its disk is away: asked for again, it is looked at again
            pass
        finally:
            del self._looking[key]
