"""What was measured of each model, kept across restarts: batch sizes, speed, memory, how long it loads.

In: figures by (model fingerprint, device). Out: the same at the next start. All of it is a hint: a file that is missing
or damaged costs a warm-up and nothing else, so it is a file of its own and no table of the database.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

log = structlog.get_logger(__name__)

_FORMAT: Final = 1
#: Models that were tried once stay out of the way of those in use.
_MOST_MODELS: Final = 64
#: How fast a measured size follows a smaller one; a larger one counts at once.
_SHRINK: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one model on one device. Bytes, seconds; `batches` by kind: cost, cost_per_s, shortage_at (cost units)."""

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
    """Where figures are kept."""

    def get(self, key: str) -> Figures:
        """The figures under *key*; empty ones where there are none."""
        ...

    def put(self, key: str, figures: Figures) -> None:
        """Keep *figures*; may be lost when the process is killed before `flush`."""
        ...

    def flush(self) -> None:
        """Write what changed to the disk."""
        ...


class FiguresFile:
    """Figures in one JSON file, replaced as a whole. Reads once; blocks for a few kilobytes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._figures: dict[str, Figures] | None = None
        self._is_changed = False

    def get(self, key: str) -> Figures:
        """As LearnedFigures.get."""
        return self._all().get(key, Figures())

    def put(self, key: str, figures: Figures) -> None:
        """As LearnedFigures.put."""
        known = self._all()
        if known.get(key) == figures:
            return
        known.pop(key, None)
        known[key] = figures  # newest last
        while len(known) > _MOST_MODELS:
            known.pop(next(iter(known)))
        self._is_changed = True

    def flush(self) -> None:
        """As LearnedFigures.flush. A disk that takes nothing is told of and borne."""
        if not self._is_changed:
            return
        text = json.dumps({"format": _FORMAT, "models": {key: asdict(one) for key, one in self._all().items()}})
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, self._path)
        except OSError as error:
            log.warning("what was learned of the models is not written down", reason=str(error))
            return
        self._is_changed = False

    def _all(self) -> dict[str, Figures]:
        if self._figures is None:
            self._figures = _read(self._path)
        return self._figures


def _read(path: Path) -> dict[str, Figures]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != _FORMAT:
            return {}
        return {str(key): _figures(one) for key, one in raw["models"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        log.warning("what was learned of the models cannot be read, learning anew", file=str(path), reason=str(error))
        return {}


def _figures(raw: Mapping[str, Any]) -> Figures:
    return Figures(
        host_bytes=max(0, int(raw["host_bytes"])),
        device_bytes=max(0, int(raw["device_bytes"])),
        load_s=max(0.0, float(raw["load_s"])),
        batches={
            str(kind): {str(name): float(value) for name, value in values.items()}
            for kind, values in raw["batches"].items()
        },
    )


def _followed(known: int, now: int) -> int:
    if now <= 0:
        return known
    return now if now >= known else int(known - _SHRINK * (known - now))
