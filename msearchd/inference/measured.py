"""What was measured of one model: memory by device, batch sizes by kind, time to load.

In: what its worker tells, and what a predecessor left in the book of figures. Out: bytes needed, sizes to begin with.
Owns the numbers of this life; the book owns those that outlive it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from msearchd.inference.learned import Figures, LearnedFigures
from msearchd.inference.residency import HOST
from msearchd.inference.spec import ModelSpec

#: Context and libraries on an accelerator, before any is measured.
_DEVICE_OVERHEAD_BYTES: Final = 600 * 2**20


class Measured:
    """The figures of one copy of a model. Engine and device are told at each call: both may change with a start."""

    def __init__(self, spec: ModelSpec, book: LearnedFigures) -> None:
        self._spec = spec
        self._book = book
        self.learned: dict[str, dict[str, float]] = {}  # by kind: size of a batch, its speed
        self.device_bytes = 0  # held on its accelerator now

    def known(self, engine: str, device: str) -> Figures:
        """What was measured, now or before."""
        return self._book.get(self._key(engine, device))

    def bytes_on(self, engine: str, device: str, *, now_bytes: int | None) -> dict[str, int]:
        """Bytes by device that it has or will need. *now_bytes*: resident in its worker; None without one."""
        known = self.known(engine, device)
        predicted = self._spec.predicted_bytes if now_bytes is None else 0
        needed = {HOST: max(now_bytes or 0, known.host_bytes or predicted)}
        if device != HOST:
            held = self.device_bytes if now_bytes is not None else 0
            needed[device] = max(held, known.device_bytes) or self.predicted_device_bytes(engine, device)
        return needed

    def predicted_device_bytes(self, engine: str, device: str) -> int:
        """Memory on an accelerator: measured before, else weights x1.2 with context and libraries."""
        weights = self._spec.card.weight_bytes if self._spec.card else 0
        return self.known(engine, device).device_bytes or int(weights * 1.2) + _DEVICE_OVERHEAD_BYTES

    def learn(self, told: Mapping[str, Any]) -> bool:
        """Take what the worker tells; True where it told of memory, so that the book should hear."""
        for kind, values in (told.get("learned") or {}).items():
            self.learned[kind] = dict(values)
        if "device_bytes" not in told:
            return False
        self.device_bytes = int(told["device_bytes"])
        return True

    def note(self, engine: str, device: str, *, host_bytes: int, load_s: float) -> None:
        """Write it into the book."""
        key = self._key(engine, device)
        seen = self._book.get(key).seen(host_bytes=host_bytes, device_bytes=self.device_bytes, load_s=load_s)
        self._book.put(key, replace(seen, batches={**seen.batches, **self.learned}))

    def _key(self, engine: str, device: str) -> str:
        identity = self._spec.card.fingerprint if self._spec.card else str(self._spec.start["source"])
        return f"{identity}|{engine}|{device.partition(':')[0]}|{self._spec.start['threads']}"
