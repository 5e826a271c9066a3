"""Routes of vector spaces and of a change of model. A part of the one table in routes.py."""

from __future__ import annotations

from typing import Final

from msearchd.api.table import Call, Row
from msearchd.control import spaces

_MISSING: Final = {404: "No such vector space."}


async def _page(call: Call) -> spaces.SpacesPage:
    return await call.control.spaces.page()


async def _plan(call: Call) -> spaces.ModelPlan:
    return await call.control.spaces.plan(call.body.space)


async def _switch(call: Call) -> spaces.SpaceRow:
    return await call.control.spaces.switch(call.body.space)


async def _rollback(call: Call) -> spaces.SpaceRow:
    return await call.control.spaces.rollback(call.body.modality)


async def _drop(call: Call) -> spaces.SpaceRow:
    return await call.control.spaces.drop(call.body.space)


SPACE_ROUTES: Final = (
    Row(method="GET", path="/spaces", name="listSpaces", summary="Vector spaces: model, coverage, points, which one answers.",
        handler=_page, reply=spaces.SpacesPage, waits=True),
    Row(method="POST", path="/spaces/plan", name="planSpace", summary="What it costs to fill a space: passages, time, bytes.",
        handler=_plan, body=spaces.SpaceRequest, reply=spaces.ModelPlan, statuses=_MISSING, waits=True),
    Row(method="POST", path="/spaces/switch", name="switchSpace",
        summary="Fill the space of a changed model; it answers once it holds as much.",
        handler=_switch, body=spaces.SpaceRequest, reply=spaces.SpaceRow, statuses=_MISSING, waits=True),
    Row(method="POST", path="/spaces/rollback", name="rollbackSpace", summary="Let the space of before answer again.",
        handler=_rollback, body=spaces.RollbackRequest, reply=spaces.SpaceRow, statuses=_MISSING, waits=True),
    Row(method="POST", path="/spaces/drop", name="dropSpace", summary="Delete the vectors of a space that does not answer.",
        handler=_drop, body=spaces.SpaceRequest, reply=spaces.SpaceRow, statuses=_MISSING, waits=True),
)  # fmt: skip
