"""Requests as they come over the wire, into the models of msearchd.control; every refusal is one of our errors.

In: ASGI receive, query strings. Out: bytes, plain values, request models. Bounded: a body has a greatest length.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import types
import typing
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import parse_qsl

from starlette.types import Message, Receive

from msearchd.api.problems import Refusal, refusal
from msearchd.control.types import Request
from msearchd.errors import BadRequest

R = TypeVar("R", bound=Request)

#: Of a body that is too long so much is read, and so long, for the caller's sake: who sends more is no honest mistake.
_MOST_DRAINED_BYTES: Final = 1024**3
_DRAIN_S: Final = 10.0


class Refused(Exception):  # noqa: N818 - it carries the answer, it is not an error of ours
    """The request is answered by `refusal` and goes no further."""

    def __init__(self, answer: Refusal) -> None:
        super().__init__(answer.problem.detail)
        self.refusal = answer


class Disconnected(Exception):  # noqa: N818
    """The caller hung up."""


async def read_body(receive: Receive, headers: Mapping[str, str], *, max_bytes: int) -> bytes:
    """The whole body. Refused: longer than *max_bytes*, or not called JSON. Disconnected: hung up on the way."""
    if _told_length(headers) > max_bytes and headers.get("expect", "").lower() == "100-continue":
        raise _too_large(max_bytes)  # it asks before it sends: nothing is on the way
    chunks: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        if length > max_bytes:
            chunks.clear()
            await _drain(receive, message)
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            break
    body = b"".join(chunks)
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media != "application/json":
        raise Refused(
            refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-json", f"the body is called {media or 'nothing'!r}",
                    hint="send JSON with the header Content-Type: application/json")
        )  # fmt: skip
    return body


def _told_length(headers: Mapping[str, str]) -> int:
    told = headers.get("content-length", "")
    return int(told) if told.isdecimal() and len(told) < 20 else 0


def _too_large(max_bytes: int) -> Refused:
    return Refused(
        refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", f"the body exceeds {max_bytes} bytes",
                hint="send less at once", headers={"connection": "close"})
    )  # fmt: skip


async def _drain(receive: Receive, message: Message) -> None:
    """Read on, keeping nothing, until the caller has sent all: closed before, it would hear a reset instead of our answer."""
    left = _MOST_DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_S):
            while message.get("more_body", False) and left > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                left -= len(message.get("body", b""))


def parsed_body(body: bytes, model: type[R]) -> R:
    """The body as *model*, an empty one as {}. Raises BadRequest where it is no JSON, ValidationError from *model*."""
    try:
        value = json.loads(body, parse_constant=_no_constant) if body else {}
    except (ValueError, RecursionError) as error:
        message = f"the body is not JSON: {error}"
        raise BadRequest(message, hint="send one JSON object") from error
    return model.model_validate(value)


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is not a JSON value"
    raise ValueError(message)


def parsed_query(query_string: bytes, model: type[R]) -> R:
    """The query string as *model*. Percent-encoded bytes that are not UTF-8 become surrogates, as in JSON paths."""
    pairs = parse_qsl(
        query_string.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="surrogateescape"
    )
    values: dict[str, Any] = {}
    for name, raw in pairs:
        kinds = _kinds(model.model_fields[name].annotation) if name in model.model_fields else {str}
        if list in kinds:
            values.setdefault(name, []).append(raw)
        elif name in values:
            message = f"{name!r} is given twice"
            raise BadRequest(message, hint="give it once")
        else:
            values[name] = _number(raw) if kinds & {int, float} else raw
    return model.model_validate(values)


def _kinds(annotation: Any) -> set[Any]:
    """The plain types behind an annotation: `Annotated[int, ...] | None` is {int, NoneType}."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return set().union(*(_kinds(part) for part in typing.get_args(annotation)))
    return {origin or annotation}


def _number(raw: str) -> Any:
    """A JSON number as such; anything else stays text, which the model refuses with its own words."""
    try:
        value = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return raw
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else raw
