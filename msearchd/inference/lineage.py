"""Which model can still embed questions in a space: the one of the settings, or one that they named before.

In: the settings, and what each known space was made by. Out: model keys. A model whose settings changed or went is remembered
as NAME@FINGERPRINT, a name that no settings can have, so that the pool serves both at once. Looks at files, loads nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from msearchd import errors
from msearchd.domain.space import ModelKey, Space
from msearchd.inference.spec import resolve
from msearchd.settings.model import EmbeddingModel, InferenceSettings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Maker:
    """What made a space: a model's settings, and how its passages were cut."""

    model: EmbeddingModel
    chunking: str

    def as_json(self) -> str:
        """To be remembered beside the space."""
        return json.dumps({"model": self.model.model_dump(mode="json"), "chunking": self.chunking})

    @classmethod
    def from_json(cls, text: str) -> Maker | None:
        """The reverse; None where it is unknown, or of settings that there are no more."""
        try:
            found = json.loads(text)
            return cls(EmbeddingModel.model_validate(found["model"]), str(found["chunking"]))
        except (ValueError, KeyError, TypeError, ValidationError):
            return None


def replaced_key(space: Space) -> ModelKey:
    """The key of a model that the settings do not name as it was."""
    return ModelKey(f"{space.model.partition('@')[0]}@{space.fingerprint[:12]}")


class Lineage:
    """All models that may be asked: those of the settings and those that made *known* (space, made_by) before."""

    def __init__(
        self, settings: InferenceSettings, *, known: Iterable[tuple[Space, str]], chunking: str, state_dir: Path
    ) -> None:
        self._named = {ModelKey(model.name): model for model in settings.models}
        self._chunking = chunking
        self._state_dir = state_dir
        self._encoders: dict[ModelKey, str] = {}
        replaced = {
            replaced_key(space): maker.model.model_copy(update={"name": replaced_key(space), "pinned": False})
            for space, made_by in known
            if (maker := Maker.from_json(made_by)) is not None
            and (self._named.get(space.model), chunking) != (maker.model, maker.chunking)
        }
        self._models = self._named | replaced
        self.settings = settings.model_copy(update={"models": tuple(self._models.values())})

    def maker(self, model: ModelKey) -> str:
        """What spaces of *model*, one of the settings', are made by, as text; "" for any other."""
        named = self._named.get(model)
        return "" if named is None else Maker(named, self._chunking).as_json()

    def keys_of(self, spaces: Iterable[Space]) -> tuple[ModelKey, ...]:
        """Every key that `key_for` may answer for *spaces*."""
        keys = (key for space in spaces for key in (space.model, replaced_key(space)))
        return tuple(dict.fromkeys(key for key in keys if key in self._models))

    def is_cut_alike(self, one: str, other: str) -> bool:
        """True where passages of both makers are cut alike, or nobody knows."""
        makers = Maker.from_json(one), Maker.from_json(other)
        return None in makers or len({maker.chunking for maker in makers if maker is not None}) == 1

    async def encoder(self, model: ModelKey) -> str:
        """The fingerprint of what *model* does to a passage, however passages are cut; "" where its files do not tell."""
        if model not in self._encoders and (named := self._models.get(model)) is not None:
            self._encoders[model] = await asyncio.to_thread(self._fingerprint, named, "")
        return self._encoders.get(model, "")

    async def key_for(self, space: Space, made_by: str, *, taken: Collection[ModelKey] = ()) -> ModelKey | None:
        """The model whose questions belong into *space*; None where its weights are gone or are others now.

        *taken* are keys that stand for other spaces.
        """
        maker = Maker.from_json(made_by)
        chunking = self._chunking if maker is None else maker.chunking
        for key in (space.model, replaced_key(space)):
            model = self._models.get(key)
            if model is None or key in taken:
                continue
            if await asyncio.to_thread(self._fingerprint, model, chunking) == space.fingerprint:
                return key
        return None

    def _fingerprint(self, model: EmbeddingModel, chunking: str) -> str:
        try:
            spec = resolve(model, allow_download=False, chunking=chunking, state_dir=self._state_dir)
        except (errors.MsearchError, OSError) as error:
            log.debug("model cannot be asked", model=model.name, reason=str(error))
            return ""
        return "" if spec.card is None else spec.card.fingerprint
