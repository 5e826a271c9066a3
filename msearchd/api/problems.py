"""Errors as problem+json (RFC 9457): a stable `code` for programs, a sentence and a hint for people.

In: MsearchError and validation errors. Out: (status, Problem, headers). Never tells more of a bug than its kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from pydantic import ValidationError

from msearchd import errors
from msearchd.control.replies import FieldError, Problem

#: Status of each kind of error.
STATUS: Final[Mapping[type[errors.MsearchError], HTTPStatus]] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.BadRequest: HTTPStatus.BAD_REQUEST,
    errors.RetryLater: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Misconfigured: HTTPStatus.CONFLICT,
    errors.BadAsset: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Bug: HTTPStatus.INTERNAL_SERVER_ERROR,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success."""

    status: int
    problem: Problem
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: HTTPStatus, code: str, detail: str, *, hint: str = "", **more: Any) -> Refusal:
    """Build one. `errors`: what is wrong with single fields; `headers`: such as Allow."""
    headers = more.pop("headers", {})
    problem = Problem(
        type=f"urn:msearchd:problem:{code}", title=status.phrase, status=int(status), detail=detail, code=code,
        hint=hint, **more,
    )  # fmt: skip
    return Refusal(int(status), problem, headers)


def from_error(error: errors.MsearchError) -> Refusal:
    """The answer for an expected failure; RetryLater says in Retry-After when to ask again."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"retry-after": str(max(1, math.ceil(error.after_s)))} if isinstance(error, errors.RetryLater) else {}
    return refusal(status, error.code, str(error), hint=error.hint, headers=headers)


def from_validation(error: ValidationError) -> Refusal:
    """The answer for a request that its model refuses: every field that is wrong, at once."""
    wrong = [
        FieldError(
            field=".".join(str(part) for part in found["loc"]), message=found["msg"].removeprefix("Value error, ")
        )
        for found in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    detail = "; ".join(f"{item.field}: {item.message}" if item.field else item.message for item in wrong[:5])
    return refusal(
        HTTPStatus.BAD_REQUEST, errors.BadRequest.code, f"the request is not as it should be: {detail}",
        hint="GET /control/v1/openapi.json describes every request", errors=wrong,
    )  # fmt: skip


def from_bug(error: BaseException) -> Refusal:
    """The answer for an exception that nobody expected; its text stays in the log."""
    return refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR, errors.Bug.code, f"an error of msearchd itself: {type(error).__name__}",
        hint="the log of the daemon has the details; please report it",
    )  # fmt: skip
