"""OpenAPI 3.1 out of the route table and the pydantic models: what is served is what is described.

In: rows. Out: the document as plain values. Pure; 0.3 ms a row, so it is made once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from msearchd import __version__
from msearchd.api.table import Dialect, Permission, Row
from msearchd.control.events import EVENTS
from msearchd.control.gateway import ApiError
from msearchd.control.replies import Problem

#: What any call may be answered with; the sentences stand once, under components/responses.
_COMMON = {
    400: "The request is not as it should be; `errors` names the fields.",
    409: "A setting, package or file of weights is missing; `hint` says what to do.",
    421: "The Host is none of ours, or a web page sent it.",
    500: "An error of msearchd itself.",
    503: "It may work later; Retry-After says when.",
}
_OWNER = {403: "Only the daemon's user and root may ask this."}
_BODY = {413: "The body is too long.", 415: "The body is not called JSON."}
_ASSET = {422: "A file cannot be read as it is."}
_ERRORS = {Dialect.PROBLEM: Problem, Dialect.OPENAI: ApiError}
#: OpenAI's clients repeat a 409 by themselves, so there a missing file of weights is told by 424.
_IN_OPENAI = {
    400: "The request is not as it should be; `param` names the field.",
    401: "The token is missing or wrong (network listener only).",
    424: "A setting, package or file of weights is missing; the message says what to do.",
}


def document(rows: Iterable[Row]) -> dict[str, Any]:
    """The OpenAPI document of *rows*."""
    rows = tuple(rows)
    models = [(row.reply, "serialization") for row in rows if row.reply]
    models += [(row.body, "validation") for row in rows if row.body]  # type: ignore[misc]
    _, definitions = models_json_schema(
        [*models, *((kind, "serialization") for kind in {_ERRORS[row.dialect] for row in rows})],  # type: ignore[list-item]
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.base + row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "msearchd control API", "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "HTTP over the daemon's Unix socket. Times are milliseconds UTC, durations seconds.",
        },
        "servers": [{"url": "/", "description": "The Unix socket; Host is localhost or msearchd."}],
        "paths": paths,
        "components": {"schemas": definitions["$defs"]},
    }  # fmt: skip


def _operation(row: Row) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.name, "summary": row.summary, "x-permission": row.permission.value,
        "parameters": _parameters(row), "responses": _responses(row),
    }  # fmt: skip
    if row.body:
        operation["requestBody"] = {"required": _asks_something(row.body), "content": _json(_ref(row.body))}
    return operation


def _asks_something(body: type[BaseModel]) -> bool:
    """True where an empty body is refused: a field, or one of several, must be there."""
    is_one_of = "anyOf" in body.model_json_schema()
    return is_one_of or any(field.is_required() for field in body.model_fields.values())


def _parameters(row: Row) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": row.id_pattern}}
        for name in re.findall(r"\{(\w+)\}", row.path)
    ]
    if row.query:
        schema = row.query.model_json_schema()
        for name, field in schema["properties"].items():
            is_needed = name in schema.get("required", ())
            found.append({"name": name, "in": "query", "required": is_needed, "schema": _without_null(field)})
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query string has no null: an optional parameter is absent instead."""
    plain = {key: value for key, value in copy.deepcopy(dict(schema)).items() if key != "default" or value is not None}
    options = [option for option in plain.pop("anyOf", ()) if option != {"type": "null"}]
    return {**plain, **(options[0] if options else {})}


def _responses(row: Row) -> dict[str, Any]:
    responses: dict[str, Any] = {str(row.status): _success(row)}
    refusals = {
        **_COMMON,
        **(_OWNER if row.permission is Permission.OWNER else {}),
        **(_BODY | _ASSET if row.body else {}),
    }
    if row.dialect is Dialect.OPENAI:
        del refusals[409]
        refusals |= _IN_OPENAI
    for status, sentence in sorted({**refusals, **row.statuses}.items()):
        if status < HTTPStatus.BAD_REQUEST:
            responses[str(status)] = {"description": sentence, "content": _json(_ref(row.reply))}
        else:
            responses[str(status)] = {
                "description": sentence,
                "content": {row.dialect.value: {"schema": _ref(_ERRORS[row.dialect])}},
            }
    if row.name == "gatewayHealth":
        responses["503"]["content"] = _json({"anyOf": [_ref(ApiError), _ref(row.reply)]})
    if row.name == "health":  # not well is an answer, not an error
        responses["503"]["content"] |= _json(_ref(row.reply))
    return responses


def _success(row: Row) -> dict[str, Any]:
    phrase = HTTPStatus(row.status).phrase
    if row.stream:
        told = "".join(f"\n- `{name}`: {data}" for name, data in EVENTS.items())
        return {
            "description": f"{phrase}. Each event has an id, to resume after; its data is a JSON object:{told}",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    return {"description": phrase, "content": _json(_ref(row.reply))} if row.reply else {"description": phrase}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}


def _ref(model: type | None) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"} if model else {}
