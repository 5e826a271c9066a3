"""Errors that answer "and now?".

Every expected failure is one of four verbs under MsearchError; each carries a sentence for the
person (`hint`: what to do or type) and a stable `code` for programs. Anything else is a bug.
Foreign exceptions are translated once, at the adapter that meets them.
"""

from __future__ import annotations

from typing import ClassVar


class MsearchError(Exception):
    """Base of all expected failures. `str(error)` is what happened; `hint` is what to do about it."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def sentence(self) -> str:
        """Message and hint as one line for a log, a job row or a terminal."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class RetryLater(MsearchError):  # noqa: N818 - the four verbs are the names
    """It may work later (store down, disk busy, child restarting): delay the job, lose nothing."""

    code = "retry-later"

    def __init__(self, message: str, *, after_s: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.after_s = after_s


class BadAsset(MsearchError):  # noqa: N818
    """This file cannot be indexed as it is: fail this job, touch no other."""

    code = "bad-asset"


class Misconfigured(MsearchError):  # noqa: N818
    """A package, weight, path or setting is missing or wrong; work that needs it is blocked.

    `key` names the cause (a settings key, "model:<name>", "engine:<name>"): jobs blocked on it wake when it changes.
    """

    code = "misconfigured"

    def __init__(self, message: str, *, key: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class Bug(MsearchError):  # noqa: N818
    """A promise of our own code is broken: stop the service loudly rather than go on wrong."""

    code = "bug"


class NotFound(MsearchError):  # noqa: N818
    """The caller named something that does not exist (a path, a job, a root)."""

    code = "not-found"


class BadRequest(MsearchError):  # noqa: N818
    """The caller asked for something that makes no sense as it is; nothing was changed."""

    code = "bad-request"


#: How an error crosses a process boundary: its code, and back again.
_BY_CODE: dict[str, type[MsearchError]] = {
    cls.code: cls for cls in (RetryLater, BadAsset, Misconfigured, Bug, NotFound, BadRequest)
}


def to_wire(error: BaseException) -> dict[str, str | float]:
    """Describe *error* as plain values for a frame header; foreign exceptions become `bug`."""
    if isinstance(error, MsearchError):
        fields: dict[str, str | float] = {"code": error.code, "message": str(error), "hint": error.hint}
        if isinstance(error, RetryLater):
            fields["after_s"] = error.after_s
        if isinstance(error, Misconfigured):
            fields["key"] = error.key
        return fields
    return {"code": Bug.code, "message": f"{type(error).__name__}: {error}", "hint": ""}


def from_wire(fields: dict[str, str | float]) -> MsearchError:
    """Rebuild the error that `to_wire` described; an unknown code is a Bug that says so."""
    message, hint = str(fields.get("message", "")), str(fields.get("hint", ""))
    cls = _BY_CODE.get(str(fields.get("code", "")), Bug)
    if cls is RetryLater:
        return RetryLater(message, after_s=float(fields.get("after_s", 1.0)), hint=hint)
    if cls is Misconfigured:
        return Misconfigured(message, key=str(fields.get("key", "")), hint=hint)
    return cls(message, hint=hint)
