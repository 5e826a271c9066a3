"""What all workers of a pool share, and what they ask of it before they load: values and one port."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msearchd.aio.child import Limits, Starter
from msearchd.inference.learned import LearnedFigures
from msearchd.inference.spec import EngineChoice, ModelSpec

if TYPE_CHECKING:
    from msearchd.inference.resident import LoadedModel


class Room(Protocol):
    """Makes room for a model before it loads (see admission.py)."""

    async def admit(self, loaded: LoadedModel) -> None:
        """Return once *loaded* may start; it counts as loaded from then on."""
        ...

    async def clear(self, loaded: LoadedModel) -> bool:
        """Unload every idle model on *loaded*'s devices; False where there was none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What all workers of a pool share. Times in seconds."""

    limits: Limits
    load_timeout_s: float
    batch_timeout_s: float
    starter_for: Callable[[EngineChoice, ModelSpec], Starter]
    engine_files: Mapping[str, Path]
    idle_unload_s: float
    figures: LearnedFigures
    room: Room
