"""What OpenAI's API says, in its shapes: errors, and embeddings as JSON made piece by piece.

In: refusals and vectors. Out: bytes. A long reply is made between turns of the loop, so that it keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from array import array
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Literal

from msearchd.api.problems import Refusal
from msearchd.control.gateway import ApiError, ApiErrorBody, Embeddings

#: Numbers written before the loop turns once more: about two milliseconds' worth.
_NUMBERS_AT_ONCE: Final = 8192
#: Clients repeat a 409 by themselves; a missing package or file of weights is not mended by that.
_STATUS: Final[Mapping[int, HTTPStatus]] = {HTTPStatus.CONFLICT: HTTPStatus.FAILED_DEPENDENCY}
_TYPES: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "service_unavailable_error",
    HTTPStatus.FAILED_DEPENDENCY: "configuration_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
}
_CODES: Final[Mapping[str, str]] = {"not-found": "model_not_found"}


def error_of(answer: Refusal) -> tuple[int, bytes]:
    """Status and body of a refusal: the sentence with what to do, a type, the field that is wrong, a stable code."""
    problem = answer.problem
    status = int(_STATUS.get(answer.status, answer.status))
    message = f"{problem.detail} ({problem.hint})" if problem.hint else problem.detail
    body = ApiErrorBody(
        message=message,
        type=_TYPES.get(status, "invalid_request_error"),
        param=problem.errors[0].field if problem.errors else None,
        code=_CODES.get(problem.code, problem.code.replace("-", "_")),
    )
    return status, json.dumps(ApiError(error=body).model_dump()).encode("ascii")


async def embeddings_body(found: Embeddings, *, encoding: Literal["float", "base64"]) -> bytes:
    """The reply of POST /v1/embeddings: control.gateway.EmbeddingsReply as JSON."""
    pieces = [b'{"object":"list","data":[']
    numbers = 0
    for index, row in enumerate(found.rows):
        comma = b"," if index else b""
        embedding = _base64(row) if encoding == "base64" else _floats(row, dim=found.dim, is_multi=found.is_multi)
        pieces.append(b'%s{"object":"embedding","index":%d,"embedding":%s}' % (comma, index, embedding))
        numbers += len(row) // 4
        if numbers >= _NUMBERS_AT_ONCE:
            numbers = 0
            await asyncio.sleep(0)
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    tail = json.dumps({"model": found.model, "usage": usage}, separators=(",", ":"))
    pieces.append(b"]," + tail[1:].encode("ascii"))
    return b"".join(pieces)


def _base64(row: bytes | memoryview) -> bytes:
    return b'"' + base64.b64encode(row) + b'"'


def _floats(row: bytes | memoryview, *, dim: int, is_multi: bool) -> bytes:
    values = array("f")
    values.frombytes(bytes(row))
    if sys.byteorder == "big":
        values.byteswap()
    plain = values.tolist()
    shaped = [plain[at : at + dim] for at in range(0, len(plain), dim)] if is_multi else plain
    return json.dumps(shaped, separators=(",", ":")).encode("ascii")
