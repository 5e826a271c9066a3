"""What people and programs see of the pool's models: values alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model as people see it. Bytes, seconds, passages."""

    name: str
    state: str  # unloaded | loading | ready | busy | unusable
    engine: str = ""
    python: str = ""
    device: str = ""
    dtype: str = ""
    dim: int = 0
    pid: int | None = None
    resident_bytes: int = 0
    waiting: int = 0
    in_flight: int = 0
    passages: int = 0
    restarts: int = 0
    idle_s: float = 0.0
    is_pinned: bool = False
    reason: str = ""
    serves: str = "text"
    batch_cost: int = 0  # learned: cost units of one batch
    cost_unit: str = ""  # tokens | patches | frames
    throughput: float = 0.0  # cost units a second
    loads: int = 0
    load_s: float = 0.0  # the last load
    device_bytes: int = 0  # of an accelerator's memory
    copies: int = 0  # loaded
    is_paused: bool = False  # its bulk work waits for a question to another model


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """All configured models, loaded or not. `budget_bytes` is what models may use together now."""

    models: tuple[ModelStatus, ...]
    budget_bytes: int


def together(copies: Sequence[ModelStatus]) -> ModelStatus:
    """One status of all copies of a model, at least one: the first's, with what adds up added up."""
    if len(copies) == 1:
        return copies[0]
    loaded = [copy for copy in copies if copy.copies]
    return replace(
        copies[0],
        state="busy" if any(copy.state == "busy" for copy in copies) else copies[0].state,
        device=" ".join(dict.fromkeys(copy.device for copy in loaded if copy.device)) or copies[0].device,
        resident_bytes=sum(copy.resident_bytes for copy in copies),
        device_bytes=sum(copy.device_bytes for copy in copies),
        waiting=sum(copy.waiting for copy in copies),
        in_flight=sum(copy.in_flight for copy in copies),
        passages=sum(copy.passages for copy in copies),
        restarts=sum(copy.restarts for copy in copies),
        loads=sum(copy.loads for copy in copies),
        throughput=sum(copy.throughput for copy in loaded),
        copies=len(loaded),
    )
