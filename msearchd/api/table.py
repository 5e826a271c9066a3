"""What a row of the route table is. The table itself is in routes.py; openapi.py and app.py read it."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msearchd.control.events import Event
from msearchd.control.gateway import Gateway
from msearchd.control.protocol import Control
from msearchd.control.types import Reply, Request

#: Where the control API lives; the OpenAI-shaped routes live under /v1.
BASE: Final = "/control/v1"
#: Ten thousand paths of the greatest length would be 40 MB; nobody sends them in one go.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024


class Dialect(enum.Enum):
    """How errors are shaped."""

    PROBLEM = "application/problem+json"  # RFC 9457
    OPENAI = "application/json"  # {"error": {"message", "type", "param", "code"}}


class Permission(enum.StrEnum):
    """Who may call. Replies tell about private files, so nearly everything is for the owner alone."""

    OWNER = "owner"  # the daemon's own user, and root
    ANYONE = "anyone"  # whoever can reach the socket


@dataclass(frozen=True, slots=True)
class Call:
    """A request that its row has understood: `body` and `query` are instances of the row's models."""

    control: Control
    body: Any
    query: Any
    path: Mapping[str, str] = field(default_factory=dict)
    gateway: Gateway | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply with another status than the row's."""

    reply: Reply
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A reply that is JSON already: one that is too long to be made in one go."""

    body: bytes


Result = Reply | Answer | Encoded | None
Handler = Callable[[Call], Awaitable[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation. `name` is its operationId; `statuses` are the other codes it may answer with, and why."""

    method: str
    path: str
    name: str
    summary: str
    handler: Handler | None = None
    #: Instead of a handler: the events to stream (text/event-stream).
    stream: Callable[[Call], AsyncIterator[Event]] | None = None
    reply: type[Reply] | None = None
    body: type[Request] | None = None
    query: type[Request] | None = None
    status: int = 200
    statuses: Mapping[int, str] = field(default_factory=dict)
    permission: Permission = Permission.OWNER
    #: True where it may take long: it ends early when the caller hangs up or the daemon stops.
    waits: bool = False
    base: str = BASE
    dialect: Dialect = Dialect.PROBLEM
    max_body_bytes: int = MAX_BODY_BYTES
    #: What {id} in the path may look like.
    id_pattern: str = "^[A-Za-z0-9_-]{1,64}$"
