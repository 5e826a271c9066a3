"""config/msearchd.toml out of the model: every key, its default, its sentence, its bounds.

    python -m msearchd.settings.document > config/msearchd.toml

Keys stand commented out, so that a copied file keeps following the defaults of later versions. Pure.
"""

from __future__ import annotations

import json
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from msearchd.settings.model import Settings

_HEAD = """\
# Settings of msearchd. Every key is here with its default; take the # away to change it.
#
# Read from ~/.config/msearchd/msearchd.toml (macOS: ~/Library/Application Support/msearchd/msearchd.toml),
# $MSEARCHD_CONFIG or --config. A variable goes before the file: MSEARCHD__WATCH__INCLUDE_HIDDEN=true.
# `msearchd check-config` says all that is wrong with it; `msearchd config show` what holds and where it comes from.
"""
#: Defaults that depend on the machine are shown as they are on a plain Linux system.
_SHOWN: dict[str, tuple[str, str]] = {
    "data_dir": (
        "~/.local/share/msearchd",
        "On macOS ~/Library/Application Support/msearchd; $XDG_DATA_HOME is honoured.",
    ),
    "api.socket": (
        "~/.local/share/msearchd/control.sock",
        "With $XDG_RUNTIME_DIR set: $XDG_RUNTIME_DIR/msearchd/control.sock.",
    ),
}
_WIDTH = 120


def document(model: type[BaseModel] = Settings) -> str:
    """The whole file."""
    plain = [name for name, field in model.model_fields.items() if not _is_section(field.annotation)]
    lines = [_HEAD]
    for name in plain:
        lines += [*_key(name, model.model_fields[name], name), ""]
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            lines += [*_section(name, field.annotation), ""]
    return "\n".join(lines).rstrip() + "\n"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _section(name: str, model: Any) -> Iterator[str]:
    title = (model.__doc__ or "").partition(":")[2].strip(" .")
    yield f"# -- {title[:1].upper()}{title[1:]} ".ljust(_WIDTH, "-")
    yield f"[{name}]"
    tables = {key: item for key, field in model.model_fields.items() if _is_section(item := _item(field.annotation))}
    for key, field in model.model_fields.items():
        if key not in tables:
            yield from _key(key, field, f"{name}.{key}")
    for key, item in tables.items():  # last: what follows a [[table]] belongs to it
        yield from _tables(f"{name}.{key}", item, model.model_fields[key])


def _item(annotation: Any) -> Any:
    return next(iter(typing.get_args(annotation)), None)


def _tables(name: str, model: Any, field: FieldInfo) -> Iterator[str]:
    """A list of tables: each default one, with all its keys."""
    for item in field.get_default(call_default_factory=True):
        yield ""
        yield from _comment(f"{field.description} One [[{name}]] table for each.")
        yield f"#[[{name}]]"
        for key, inner in model.model_fields.items():
            yield from _key(key, inner, "", getattr(item, key))


def _key(key: str, field: FieldInfo, path: str, value: Any = None) -> Iterator[str]:
    default = field.get_default(call_default_factory=True) if value is None else value
    shown, note = _SHOWN.get(path, (default, ""))
    yield from _comment(" ".join(part for part in (field.description or "", _bounds(field), note) if part))
    yield f"#{key} = {toml_value(shown)}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)


def _bounds(field: FieldInfo) -> str:
    """What may stand there: the choices, or the range."""
    if typing.get_origin(field.annotation) is Literal:
        choices = [toml_value(choice) for choice in typing.get_args(field.annotation)]
        return f"One of {', '.join(choices)}." if len(choices) > 1 else f"Only {choices[0]} for now."
    low: Any = next((rule.ge for rule in field.metadata if isinstance(rule, Ge)), None)
    high: Any = next((rule.le for rule in field.metadata if isinstance(rule, Le)), None)
    above: Any = next((rule.gt for rule in field.metadata if isinstance(rule, Gt)), None)
    below: Any = next((rule.lt for rule in field.metadata if isinstance(rule, Lt)), None)
    parts = [f"at least {low}" if low is not None else "", f"more than {above}" if above is not None else ""]
    parts += [f"at most {high}" if high is not None else "", f"less than {below}" if below is not None else ""]
    said = ", ".join(part for part in parts if part)
    return f"({said[0].upper()}{said[1:]}.)" if said else ""


def toml_value(value: Any) -> str:
    """A value as TOML. JSON's strings are TOML's basic strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, (dict, types.MappingProxyType)):
        return "{" + ", ".join(f"{toml_value(str(key))} = {toml_value(item)}" for key, item in value.items()) + "}"
    message = f"{type(value).__name__} is no TOML value"
    raise TypeError(message)


if __name__ == "__main__":
    sys.stdout.write(document())
