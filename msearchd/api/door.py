"""Who may come in, and how: the names we are called by, the token of the network, no web pages.

In: headers and the door a request came through. Out: a refusal, or None. Pure.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from msearchd.api.problems import Refusal, refusal

#: Names under which a program on this machine may call us. Anything else comes from a page that rebound a name.
_LOCAL_NAMES = frozenset({"", "localhost", "msearchd"})


@dataclass(frozen=True, slots=True)
class Door:
    """The network listener: further names it is called by, and the token it asks for ("" asks for none)."""

    hosts: frozenset[str] = frozenset()
    token: str = ""


def strange(headers: Mapping[str, str], *, door: Door | None) -> Refusal | None:
    """Refuse what only a browser would send: a foreign Host (DNS rebinding), any Origin or Referer.

    *door* is None for the Unix socket. An address as Host is no rebound name, so the network may use it.
    """
    name = _host_name(headers.get("host", ""))
    is_known = name in _LOCAL_NAMES or (door is not None and (name in door.hosts or _is_address(name)))
    if not is_known:
        detail = f"the Host {name!r} is none of ours"
        hint = (
            "call http://localhost/... through the socket"
            if door is None
            else f"call it by its address, or add {name!r} to [api] hosts"
        )
    elif "origin" in headers or "referer" in headers:
        detail, hint = "a web page may not call the control API", "call it without Origin and Referer"
    else:
        return None
    return refusal(HTTPStatus.MISDIRECTED_REQUEST, "misdirected", detail, hint=hint)


def has_token(headers: Mapping[str, str], *, door: Door) -> bool:
    """True where the request may do all that the door leads to."""
    if not door.token:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), door.token.encode())


def no_token() -> Refusal:
    """The answer to a request without the right token."""
    return refusal(
        HTTPStatus.UNAUTHORIZED, "invalid-api-key", "the token is missing or wrong",
        hint="send the header Authorization: Bearer TOKEN with the content of the token file",
        headers={"www-authenticate": "Bearer"},
    )  # fmt: skip


def _host_name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
