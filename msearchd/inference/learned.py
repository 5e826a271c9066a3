"""What is known of each model beyond one worker's life: batch sizes, speed, memory, load time, and pins made by hand.

In: figures by (model fingerprint, engine, device, threads). Out: the same for the next worker. All figures are hints: lost,
they cost a warm-up and nothing else. Here are the values, the port, and a book that lives as long as its process;
model_book.py keeps it in the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from msearchd.domain.space import ModelKey

#: Models that were tried once stay out of the way of those in use.
MOST_MODELS: Final = 64
#: How fast a measured size follows a smaller one; a larger one counts at once.
_SHRINK: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one model on one device. Bytes, seconds; `batches` by kind: what Budget.as_learned says (cost units)."""

    host_bytes: int = 0
    device_bytes: int = 0
    load_s: float = 0.0
    batches: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def seen(self, *, host_bytes: int, device_bytes: int, load_s: float) -> Figures:
        """With a new measurement: memory grows at once and shrinks slowly, for a prediction must not be too small."""
        return replace(
            self,
            host_bytes=_followed(self.host_bytes, host_bytes),
            device_bytes=_followed(self.device_bytes, device_bytes),
            load_s=load_s or self.load_s,
        )


class LearnedFigures(Protocol):
    """Where the workers' figures are written down."""

    def get(self, key: str) -> Figures:
        """The figures under *key*; empty ones where there are none."""
        ...

    def put(self, key: str, figures: Figures) -> None:
        """Keep *figures*; lost where the process is killed before the book's next `flush`."""
        ...


class Book(LearnedFigures, Protocol):
    """What the pool of models remembers."""

    def pin_of(self, model: ModelKey) -> bool | None:
        """What was decided by hand of *model*; None: its settings decide."""
        ...

    async def keep_pin(self, model: ModelKey, pin: bool | None) -> None:
        """Remember a decision, or (None) that there is none; it stands when this returns. Raises RetryLater."""
        ...

    async def flush(self) -> None:
        """Write down what changed. Never raises: hints are borne on a disk that takes nothing."""
        ...


class MemoryBook:
    """A book that ends with its process."""

    def __init__(
        self, figures: Mapping[str, Figures] | None = None, pins: Mapping[ModelKey, bool] | None = None
    ) -> None:
        self._figures = dict(figures or {})  # oldest first
        self._pins = dict(pins or {})
        self._changed: set[str] = set()

    def get(self, key: str) -> Figures:
        """As LearnedFigures.get."""
        return self._figures.get(key, Figures())

    def put(self, key: str, figures: Figures) -> None:
        """As LearnedFigures.put."""
        if self._figures.get(key) == figures:
            return
        self._figures.pop(key, None)
        self._figures[key] = figures
        self._changed.add(key)
        while len(self._figures) > MOST_MODELS:
            self._figures.pop(next(iter(self._figures)))

    def pin_of(self, model: ModelKey) -> bool | None:
        """As Book.pin_of."""
        return self._pins.get(model)

    async def keep_pin(self, model: ModelKey, pin: bool | None) -> None:
        """As Book.keep_pin."""
        self._note_pin(model, pin)

    async def flush(self) -> None:
        """As Book.flush; there is nowhere to write to."""
        self._changed.clear()

    def forget(self, *, keeps_pins: bool) -> None:
        """Know nothing any more."""
        self._figures.clear()
        self._changed.clear()
        if not keeps_pins:
            self._pins.clear()

    def _note_pin(self, model: ModelKey, pin: bool | None) -> None:
        if pin is None:
            self._pins.pop(model, None)
        else:
            self._pins[model] = pin

    def _take_changed(self) -> dict[str, Figures]:
        changed = {key: self._figures[key] for key in self._changed if key in self._figures}
        self._changed.clear()
        return changed

    def _not_written(self, keys: Iterable[str]) -> None:
        self._changed.update(keys)


def _followed(known: int, now: int) -> int:
    if now <= 0:
        return known
    return now if now >= known else int(known - _SHRINK * (known - now))
