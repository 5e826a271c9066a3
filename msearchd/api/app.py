"""The route table as an ASGI application: guard, read, validate, call, answer.

In: a Control and rows. Out: a Starlette application. Every answer that is no success is problem+json; an unexpected
exception is logged with its traceback and answered with its kind alone.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from msearchd import errors
from msearchd.api import openapi, problems
from msearchd.api.problems import Refusal, refusal
from msearchd.api.reading import Disconnected, Refused, parsed_body, parsed_query, read_body
from msearchd.api.routes import BASE, ROUTES
from msearchd.api.sse import HEARTBEAT_S, serve_events, until_gone
from msearchd.api.table import Answer, Call, Permission, Row
from msearchd.control.protocol import Control
from msearchd.control.types import Reply

log = structlog.get_logger(__name__)

#: Names under which a program on this machine may call us. Anything else comes from a page that rebound a name.
_HOSTS = {"", "localhost", "msearchd"}


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of the socket, as the kernel says."""

    uid: int
    pid: int

    @property
    def is_owner(self) -> bool:
        """The daemon's own user, or root."""
        return self.uid in {os.geteuid(), 0}


@dataclass(frozen=True, slots=True)
class _Served:
    """What every endpoint needs."""

    control: Control
    closing: asyncio.Event
    heartbeat_s: float


def build(control: Control, *, closing: asyncio.Event, heartbeat_s: float = HEARTBEAT_S) -> ASGIApp:
    """The application. `scope["state"]["peer"]` must hold a Peer: without one, only Permission.ANYONE is answered.

    *closing* set: streams end, waiting calls answer 503, so that a stop never waits for a patient caller.
    """
    served = _Served(control, closing, heartbeat_s)
    by_path: dict[str, list[Row]] = {}
    for row in ROUTES:
        by_path.setdefault(row.path, []).append(row)
    routes = [Route(BASE + path, endpoint=_Endpoint(served, rows)) for path, rows in by_path.items()]
    routes.append(Route(f"{BASE}/openapi.json", endpoint=_Document()))
    application = Starlette(routes=routes)
    application.router.default = _not_found
    application.router.redirect_slashes = False
    return _Guard(application)


class _Guard:
    """Refuses what only a browser would send: a foreign Host (DNS rebinding), any Origin or Referer."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "").strip().lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in _HOSTS:
            detail, hint = f"the Host {name!r} is none of ours", "call http://localhost/... through the socket"
        elif "origin" in headers or "referer" in headers:
            detail, hint = "a web page may not call the control API", "call it without Origin and Referer"
        else:
            await self._application(scope, receive, send)
            return
        await _refuse(refusal(HTTPStatus.MISDIRECTED_REQUEST, "misdirected", detail, hint=hint), send)


class _Endpoint:
    """All methods of one path."""

    def __init__(self, served: _Served, rows: Iterable[Row]) -> None:
        self._served = served
        self._rows = {row.method: row for row in rows}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = self._rows.get(scope["method"])
        try:
            if row is None:
                await _refuse(_wrong_method(scope["method"], self._rows), send)
                return
            _check_permission(row, scope)
            call = await self._understood(row, scope, receive)
            if row.stream is not None:
                events = row.stream(call)
                await serve_events(
                    events, receive, send, closing=self._served.closing, heartbeat_s=self._served.heartbeat_s
                )
                return
            await _answer(await self._handled(row, call, receive), row, send)
        except Disconnected:
            return
        except Refused as error:
            await _refuse(error.refusal, send)
        except errors.MsearchError as error:
            if isinstance(error, errors.Bug):
                log.exception("request failed", path=scope["path"], error=str(error))
            await _refuse(problems.from_error(error), send)
        except Exception as error:  # the one place where a request's bug ends
            log.exception("request failed", path=scope["path"], error=repr(error))
            await _refuse(problems.from_bug(error), send)

    async def _understood(self, row: Row, scope: Scope, receive: Receive) -> Call:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers) if row.body else b""
        try:
            return Call(
                control=self._served.control,
                body=parsed_body(body, row.body) if row.body else None,
                query=_query(row, scope, headers),
                path=scope["path_params"],
            )
        except ValidationError as error:
            raise Refused(problems.from_validation(error)) from error

    async def _handled(self, row: Row, call: Call, receive: Receive) -> Reply | Answer | None:
        if row.handler is None:
            message = f"{row.name} has neither handler nor stream"
            raise errors.Bug(message)
        if not row.waits:
            return await row.handler(call)
        result: Reply | Answer | None = await _until_left(row.handler(call), receive, self._served.closing)
        return result


def _query(row: Row, scope: Scope, headers: Mapping[str, str]) -> Any:
    query_string: bytes = scope["query_string"]
    # A browser-like client that reconnects names the last event in a header.
    if row.stream is not None and not query_string and (last := headers.get("last-event-id", "")).isdigit():
        query_string = b"since=" + last.encode("ascii")
    return parsed_query(query_string, row.query) if row.query else None


async def _until_left(work: Awaitable[Any], receive: Receive, closing: asyncio.Event) -> Any:
    """Result of *work*; cancelled when the caller hangs up (Disconnected) or the daemon stops (RetryLater)."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(until_gone(receive), name="caller-gone")
    closed = asyncio.create_task(closing.wait(), name="api-closing")
    try:
        await asyncio.wait({working, gone, closed}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise Disconnected
        raise errors.RetryLater("the daemon is stopping", after_s=5.0, hint="ask again when it runs again")
    finally:
        for task in (working, gone, closed):
            task.cancel()
        await asyncio.gather(working, gone, closed, return_exceptions=True)


def _check_permission(row: Row, scope: Scope) -> None:
    peer: Peer | None = scope.get("state", {}).get("peer")
    if row.permission is Permission.OWNER and (peer is None or not peer.is_owner):
        raise Refused(
            refusal(HTTPStatus.FORBIDDEN, "forbidden", "answers tell about private files, so only their owner may ask",
                    hint="ask as the user who runs the daemon")
        )  # fmt: skip


def _wrong_method(method: str, rows: Mapping[str, Row]) -> Refusal:
    allowed = ", ".join(sorted(rows))
    detail = f"{method} is not known here, only {allowed}"
    return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", detail, headers={"allow": allowed})


async def _not_found(scope: Scope, _receive: Receive, send: Send) -> None:
    await _refuse(
        refusal(HTTPStatus.NOT_FOUND, errors.NotFound.code, f"there is nothing at {scope['path']}",
                hint=f"GET {BASE}/openapi.json lists everything there is"), send,
    )  # fmt: skip


class _Document:
    """openapi.json, for anyone."""

    def __init__(self) -> None:
        self._body = b""  # made when first asked for: it costs a start a tenth of a second

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            self._body = self._body or json.dumps(openapi.document(ROUTES, base=BASE)).encode("ascii")
            await _send(200, self._body, {"content-type": "application/json"}, send)
        else:
            allowed = {"allow": "GET"}
            await _refuse(
                refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "only GET", headers=allowed), send
            )


async def _answer(result: Reply | Answer | None, row: Row, send: Send) -> None:
    answer = result if isinstance(result, Answer) else None
    reply = answer.reply if answer else result
    status = answer.status if answer else row.status
    if reply is None:
        await _send(status, b"", {}, send)
        return
    # ASCII: a path's bytes that are not UTF-8 travel as escaped surrogates.
    body = json.dumps(reply.model_dump(), separators=(",", ":")).encode("ascii")  # type: ignore[union-attr]
    await _send(status, body, {"content-type": "application/json", **(answer.headers if answer else {})}, send)


async def _refuse(answer: Refusal, send: Send) -> None:
    body = json.dumps(answer.problem.model_dump()).encode("ascii")
    await _send(answer.status, body, {"content-type": "application/problem+json", **answer.headers}, send)


async def _send(status: int, body: bytes, headers: Mapping[str, str], send: Send) -> None:
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    if status != HTTPStatus.NO_CONTENT:
        raw.append((b"content-length", str(len(body)).encode("ascii")))
    raw += [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
