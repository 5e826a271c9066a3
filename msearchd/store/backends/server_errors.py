"""What the Qdrant client raises, as one of our verbs: translated once, here."""

from __future__ import annotations

import re

from msearchd import errors

_HTTP_BUSY = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
_HTTP_REFUSED = frozenset({401, 403})
_GRPC_BUSY = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED", "INTERNAL", "UNKNOWN"}
)
_GRPC_REFUSED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_RETRY_AFTER_S = 5.0


def translated(error: Exception, doing: str, url: str) -> errors.MsearchError:
    """*error* as RetryLater, Misconfigured, NotFound or Bug, with a sentence that names the server."""
    if isinstance(error, errors.MsearchError):
        return error
    http, grpc = http_status(error), grpc_status(error)
    if http in _HTTP_REFUSED or grpc in _GRPC_REFUSED:
        return errors.Misconfigured(
            f"{doing}: {url} refuses the API key",
            key="store.url",
            hint="set QDRANT_API_KEY, or api_key_file in [store]",
        )
    if http == 404 or grpc == "NOT_FOUND":
        return errors.NotFound(f"{doing}: {brief(error)}")
    if http in _HTTP_BUSY or grpc in _GRPC_BUSY or is_unreachable(error):
        return errors.RetryLater(
            f"{doing}: {url} does not answer: {brief(error)}",
            after_s=_RETRY_AFTER_S,
            hint="start the server or correct url in [store]; work goes on by itself",
        )
    if http is not None and http == 400:
        return errors.BadRequest(f"{doing}: {url} refuses it: {brief(error)}")
    return errors.Bug(f"{doing}: {brief(error)}")


def http_status(error: Exception) -> int | None:
    """Status of the server's HTTP answer, if it answered."""
    status = getattr(error, "status_code", None)
    if status is None and type(error).__name__ == "ResourceExhaustedResponse":
        return 429
    return status if isinstance(status, int) else None


def grpc_status(error: Exception) -> str:
    """Name of the gRPC status, "" if it was no gRPC call."""
    code = getattr(error, "code", None)
    if not callable(code):
        return ""
    return str(getattr(code(), "name", ""))


def is_unreachable(error: Exception) -> bool:
    """True where no answer came: refused, reset, cut off or too late."""
    if type(error).__name__ == "ResponseHandlingException" or isinstance(error, OSError | TimeoutError):
        return True
    return grpc_status(error) in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}


def brief(error: Exception) -> str:
    """One short line of what the client said."""
    if (details := getattr(error, "details", None)) is not None and callable(details):
        text = str(details())
    else:
        text = str(error) or type(getattr(error, "source", error)).__name__
    return re.sub(r"\s+", " ", text)[:200]
