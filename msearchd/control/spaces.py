"""Vector spaces side by side: where each stands, what a change of model costs, and switch, roll back, drop.

Values, and who does it (SpaceDesk).
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from msearchd.control.types import Count, Reply, Request, Text, TimeMs

Modality = Literal["text", "sparse", "image", "audio", "page"]
Phase = Literal["serving", "building", "waiting", "declined", "kept"]
SpaceNamed = Annotated[
    str, Field(min_length=1, max_length=300, description="Name of a vector space, or of the model that makes it.")
]


class SpaceRequest(Request):
    """One space."""

    space: SpaceNamed


class RollbackRequest(Request):
    """Which questions go back to the model of before."""

    modality: Modality = "text"


class SpaceRow(Reply):
    """A vector space and where it stands."""

    name: Text
    model: Text
    fingerprint: Text
    modality: Text
    phase: Annotated[
        Phase,
        Field(
            description="serving: answers. building: takes over once it holds as much. waiting: for a yes. "
            "declined: somebody said no, or went back. kept: for a way back."
        ),
    ]
    dim: Count
    contents: Annotated[Count, Field(description="Files' contents that are live in it.")] = 0
    lacking: Annotated[Count, Field(description="Contents that it would still have to embed.")] = 0
    coverage: Annotated[float, Field(ge=0, le=1, description="Part of all contents of its kind that it holds.")] = 1.0
    points: Count = 0
    size_bytes: Annotated[Count, Field(description="On the disk; 0 where the store does not tell.")] = 0
    is_askable: Annotated[bool, Field(description="Its model is there to embed questions.")] = True
    since_ms: Annotated[TimeMs, Field(description="In this phase.")] = 0
    drop_ms: Annotated[TimeMs | None, Field(description="When a kept one goes by itself.")] = None


class SpacesPage(Reply):
    """All spaces, and what awaits a decision."""

    spaces: list[SpaceRow]
    sentences: list[Text] = Field(default_factory=list)


class ModelPlan(Reply):
    """What it costs to fill a space. `per_s` and `seconds` are null where the model was not measured."""

    space: Text
    modality: Text
    phase: Phase
    serving: Annotated[Text, Field(description="The space that answers meanwhile.")] = ""
    contents: Count
    samples: Annotated[Count, Field(description="Passages, pictures, or windows of sound to embed.")]
    per_s: Annotated[float | None, Field(description="Samples a second, measured now on some of yours.")] = None
    seconds: float | None = None
    size_bytes: Annotated[
        Count, Field(description="Vectors on the disk, about, beside those of the space that serves.")
    ]
    keep_replaced_h: Annotated[float, Field(description="For so long both lie on the disk.")]


class SpaceDesk(Protocol):
    """Who answers. NotFound: no such space."""

    async def page(self) -> SpacesPage:
        """Where every space stands."""
        ...

    async def plan(self, space: str) -> ModelPlan:
        """What it costs to fill it; embeds a few passages to measure. Misconfigured: its model cannot run."""
        ...

    async def switch(self, space: str) -> SpaceRow:
        """Fill it, and let it answer once it holds as much. BadRequest: the settings do not ask for it."""
        ...

    async def rollback(self, modality: str) -> SpaceRow:
        """Stop building, or let the space of before answer again; what answers now. BadRequest: there is none."""
        ...

    async def drop(self, space: str) -> SpaceRow:
        """Delete the vectors of a space that does not answer. BadRequest: it does."""
        ...
