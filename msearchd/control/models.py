"""The models on the desk: where each stands, and load, unload, pin. Values, and who does it (ModelDesk)."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from msearchd.control.types import Count, Reply, Request, Text, TimeMs

Name = Annotated[str, Field(min_length=1, max_length=300, description="Name of a model under [[inference.models]].")]
State = Literal["unloaded", "loading", "ready", "busy", "unusable"]


class ModelRequest(Request):
    """One model."""

    model: Name


class PinRequest(Request):
    """Keep a model loaded, or no longer."""

    model: Name
    is_pinned: Annotated[
        bool, Field(description="true: load it, and neither idle time nor another model's need unloads it.")
    ] = True


class ModelPageRow(Reply):
    """A model with what was learned about it. Throughput and batch are in `cost_unit`s: tokens, patches, frames."""

    name: Text
    serves: Text
    state: State
    reason: Annotated[Text, Field(description="Why it is not usable, with what to do.")] = ""
    source: Text = ""
    engine: Text = ""
    python: Text = ""
    device: Text = ""
    dtype: Text = ""
    dim: Count = 0
    batch_cost: Annotated[Count, Field(description="Cost units of one batch, as learned; 0 until it worked.")] = 0
    cost_unit: Text = ""
    throughput_per_s: Annotated[float, Field(description="Cost units a second while it works.")] = 0.0
    resident_bytes: Count = 0
    device_bytes: Annotated[Count, Field(description="Memory on an accelerator.")] = 0
    waiting: Annotated[Count, Field(description="Samples that wait for it.")] = 0
    in_flight: Annotated[Count, Field(description="Samples at work.")] = 0
    samples: Annotated[Count, Field(description="Samples of the index done since the start.")] = 0
    loads: Count = 0
    load_s: Annotated[float, Field(description="How long the last load took.")] = 0.0
    restarts: Count = 0
    last_used_ms: Annotated[TimeMs | None, Field(description="null: not since the start.")] = None
    is_pinned: bool = False


class ModelsPage(Reply):
    """All configured models. `budget_bytes` is what they may use together now."""

    models: list[ModelPageRow]
    budget_bytes: Count
    resident_bytes: Count


class ModelDesk(Protocol):
    """Who answers. NotFound: no model has that name."""

    def page(self) -> ModelsPage:
        """Where every model stands; from snapshots."""
        ...

    async def load(self, model: str) -> ModelPageRow:
        """Load and warm it now. Misconfigured: package, weights or setting; RetryLater: memory is short."""
        ...

    async def unload(self, model: str) -> ModelPageRow:
        """End its worker; every byte comes back. RetryLater: it is at work."""
        ...

    async def pin(self, model: str, *, is_pinned: bool) -> ModelPageRow:
        """Load it and keep it loaded, or let it go when it is idle again."""
        ...
