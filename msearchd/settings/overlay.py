"""The environment as a layer of settings: MSEARCHD__WATCH__INCLUDE_HIDDEN=true is [watch] include_hidden = true.

In: environment variables and the model. Out: key path -> value, as TOML would have given it. Pure.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from msearchd.settings.locate import KeyPath

PREFIX = "MSEARCHD__"


def from_environment(environ: Mapping[str, str], model: type[BaseModel]) -> dict[KeyPath, tuple[str, Any]]:
    """Key path -> (variable, value). Names that the model does not know come too; validation reports them."""
    layer: dict[KeyPath, tuple[str, Any]] = {}
    for variable in sorted(environ):
        if variable.startswith(PREFIX):
            path = tuple(variable[len(PREFIX) :].lower().split("__"))
            layer[path] = (variable, _as_toml(environ[variable], annotation_of(model, path)))
    return layer


def annotation_of(model: type[BaseModel], path: KeyPath) -> Any:
    """The type that *model* gives to a key path; None where it knows no such key."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            here = next(iter(typing.get_args(here)), None)
        elif isinstance(here, type) and issubclass(here, BaseModel) and part in here.model_fields:
            here = here.model_fields[part].annotation
        else:
            return None
    return here


def _as_toml(raw: str, annotation: Any) -> Any:
    """Text stays text where the key takes text; else it is read as a TOML value. A lone text is a list of one."""
    if annotation in {str, Path} or typing.get_origin(annotation) in {Literal, types.UnionType}:
        return raw
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.lower() == "true" if raw.lower() in {"true", "false"} else raw
    return [value] if typing.get_origin(annotation) is tuple and isinstance(value, str) else value


def put(document: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set one key of a nested document, making the tables on the way; a value in the way is replaced."""
    for part in path[:-1]:
        below = document.get(str(part))
        if not isinstance(below, dict):
            below = document[str(part)] = {}
        document = below
    document[str(path[-1])] = value


ABSENT: Any = object()


def below(document: Any, part: str | int) -> Any:
    """What stands under one key or index; ABSENT if there is nothing."""
    match document, part:
        case dict() as table, str(key):
            return table.get(key, ABSENT)
        case list() as items, int(index) if index < len(items):
            return items[index]
        case _:
            return ABSENT


def holder(document: Any, path: KeyPath) -> dict[str, Any] | list[Any] | None:
    """The table or list that holds the last part of *path*; None if the way there does not exist."""
    for part in path[:-1]:
        document = below(document, part)
    return document if isinstance(document, (dict, list)) else None


def remove(document: Any, path: KeyPath) -> bool:
    """Take one key or list item out; False if it is not there."""
    match holder(document, path), path[-1]:
        case dict() as table, str(key) if key in table:
            del table[key]
        case list() as items, int(index) if index < len(items):
            del items[index]
        case _:
            return False
    return True
