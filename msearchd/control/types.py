"""Field types of the control API: strict, yet exactly as wide as their JSON Schema.

Strict pydantic refuses 137.0 for an integer, which JSON Schema allows; lax pydantic takes 0 for a boolean. So requests
are strict with one exception for integral floats (schemathesis found both).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema


def _integral(value: Any) -> Any:
    """1.0 is an integer in JSON; everything else is left to the strict check."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _path(value: Any) -> str:
    """An absolute path as text. Bytes that are not UTF-8 arrive as the lone surrogates of Python's surrogateescape."""
    if not isinstance(value, str):
        message = "a path is a string"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns ValueError into a reported error, TypeError into a crash
    if not value.startswith("/") or "\0" in value:
        message = "a path begins with / and has no NUL"
        raise ValueError(message)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        message = "a path's bytes that are not UTF-8 are written as surrogates U+DC80 to U+DCFF, one for each byte"
        raise ValueError(message) from error
    return value


def _text(value: Any) -> str:
    """Any string, lone surrogates included: error texts and snippets may quote odd file names."""
    if not isinstance(value, str):
        message = "a string is needed"
        raise ValueError(message)  # noqa: TRY004 - as above
    return value


#: Plain: pydantic's own serializer cannot encode lone surrogates; replies are written by json.dumps with ASCII escapes.
_AS_IT_IS = PlainSerializer(lambda value: value, return_type=Any)

#: Last in the list: constraints before it are told by the JSON Schema in its own words (minimum, not ge).
INTEGRAL = BeforeValidator(_integral)
Int = Annotated[int, INTEGRAL]
Count = Annotated[int, Field(ge=0, le=2**63 - 1), INTEGRAL]
#: Milliseconds since 1970 UTC.
TimeMs = Annotated[int, Field(ge=-(2**53), le=2**53), INTEGRAL]
PathText = Annotated[
    str,
    PlainValidator(_path),
    _AS_IT_IS,
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^/[^\u0000]*$",
            "description": "Absolute path; each byte that is not UTF-8 as U+DC80 to U+DCFF (Python's surrogateescape).",
        }
    ),
]
Text = Annotated[str, PlainValidator(_text), _AS_IT_IS, WithJsonSchema({"type": "string"})]


def _open(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class Request(BaseModel):
    """What a caller sends: unknown fields and wrong types are refused."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Reply(BaseModel):
    """What the daemon answers. Clients ignore fields that they do not know, so that fields can be added."""

    model_config = ConfigDict(
        defer_build=True, extra="forbid", frozen=True, strict=True, allow_inf_nan=False, json_schema_extra=_open
    )


def path_text(path: bytes) -> str:
    """A path of the kernel as it stands in JSON. Inverse of `path_bytes`, for every byte string."""
    return path.decode("utf-8", "surrogateescape")


def path_bytes(text: str) -> bytes:
    """A path out of JSON as the kernel wants it."""
    return text.encode("utf-8", "surrogateescape")
