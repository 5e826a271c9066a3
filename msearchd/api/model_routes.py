"""Routes of the models: state, load, unload, pin. A part of the one table in routes.py."""

from __future__ import annotations

from typing import Final

from msearchd.api.table import Call, Row
from msearchd.control import models

_MISSING: Final = {404: "No such model."}


async def _page(call: Call) -> models.ModelsPage:
    return call.control.models.page()


async def _load(call: Call) -> models.ModelPageRow:
    return await call.control.models.load(call.body.model)


async def _unload(call: Call) -> models.ModelPageRow:
    return await call.control.models.unload(call.body.model)


async def _pin(call: Call) -> models.ModelPageRow:
    return await call.control.models.pin(call.body.model, is_pinned=call.body.is_pinned)


MODEL_ROUTES: Final = (
    Row(method="GET", path="/models", name="listModels", summary="Models: state, engine, learned batch, memory.",
        handler=_page, reply=models.ModelsPage),
    Row(method="POST", path="/models/load", name="loadModel", summary="Load and warm a model now.",
        handler=_load, body=models.ModelRequest, reply=models.ModelPageRow, statuses=_MISSING, waits=True),
    Row(method="POST", path="/models/unload", name="unloadModel", summary="End a model's worker; its memory comes back.",
        handler=_unload, body=models.ModelRequest, reply=models.ModelPageRow, statuses=_MISSING),
    Row(method="POST", path="/models/pin", name="pinModel", summary="Keep a model loaded, or no longer.",
        handler=_pin, body=models.PinRequest, reply=models.ModelPageRow, statuses=_MISSING, waits=True),
)  # fmt: skip
