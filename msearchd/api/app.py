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
from msearchd.api import door as entrance
from msearchd.api import openapi, problems
from msearchd.api.door import Door
from msearchd.api.gateway_routes import GATEWAY_ROUTES
from msearchd.api.openai_shape import error_of
from msearchd.api.problems import Refusal, refusal
from msearchd.api.reading import Disconnected, Refused, parsed_body, parsed_query, read_body
from msearchd.api.routes import ROUTES
from msearchd.api.sse import HEARTBEAT_S, serve_events, until_gone
from msearchd.api.table import BASE, Answer, Call, Dialect, Encoded, Permission, Result, Row
from msearchd.control.gateway import Gateway
from msearchd.control.protocol import Control

log = structlog.get_logger(__name__)


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

    control: Control | None
    gateway: Gateway | None
    closing: asyncio.Event
    heartbeat_s: float


def build(
    control: Control | None,
    *,
    gateway: Gateway | None = None,
    door: Door | None = None,
    closing: asyncio.Event,
    heartbeat_s: float = HEARTBEAT_S,
) -> ASGIApp:
    """The application: the control API where there is a *control*, the OpenAI-shaped routes where there is a *gateway*.

    Through the Unix socket `scope["state"]["peer"]` must hold a Peer: without one, only Permission.ANYONE is answered.
    Through the network (`scope["state"]["is_network"]`) the gateway's routes alone are there, and *door* is its token.
    *closing* set: streams end, waiting calls answer 503, so that a stop never waits for a patient caller.
    """
    served = _Served(control, gateway, closing, heartbeat_s)
    rows = (*(ROUTES if control else ()), *(GATEWAY_ROUTES if gateway else ()))
    by_path: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row.base + row.path, []).append(row)
    routes = [Route(path, endpoint=_Endpoint(served, some)) for path, some in by_path.items()]
    if control:
        routes.append(Route(f"{BASE}/openapi.json", endpoint=_Document(rows)))
    if gateway:
        routes.append(Route("/v1/openapi.json", endpoint=_Document(GATEWAY_ROUTES)))
    application = Starlette(routes=routes)
    application.router.default = _not_found
    application.router.redirect_slashes = False
    return _Guard(application, door or Door())


class _Guard:
    """Refuses web pages, and keeps the control API out of the network."""

    def __init__(self, application: ASGIApp, door: Door) -> None:
        self._application = application
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        state = scope.setdefault("state", {})
        if state.get("is_head_too_large"):
            await _refuse(_head_refusal(), send, dialect=_dialect_at(scope["path"]))
            return
        headers = Headers(scope=scope)
        door = self._door if state.get("is_network") else None
        refused = entrance.strange(headers, door=door)
        if refused is not None:
            await _refuse(refused, send, dialect=_dialect_at(scope["path"]))
            return
        if door is not None:
            state["has_token"] = entrance.has_token(headers, door=door)
            if scope["path"].startswith(BASE):
                await _not_found(scope, receive, send)
                return
        await self._application(scope, receive, send)


def _dialect_at(path: str) -> Dialect:
    return Dialect.PROBLEM if path.startswith(BASE) else Dialect.OPENAI


class _Endpoint:
    """All methods of one path."""

    def __init__(self, served: _Served, rows: Iterable[Row]) -> None:
        self._served = served
        self._rows = {row.method: row for row in rows}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        row = self._rows.get(scope["method"])
        dialect = next(iter(self._rows.values())).dialect
        try:
            if row is None:
                await _refuse(_wrong_method(scope["method"], self._rows), send, dialect=dialect)
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
            await _refuse(error.refusal, send, dialect=dialect)
        except errors.MsearchError as error:
            if isinstance(error, errors.Bug):
                log.exception("request failed", path=scope["path"], error=str(error))
            await _refuse(problems.from_error(error), send, dialect=dialect)
        except Exception as error:  # the one place where a request's bug ends
            log.exception("request failed", path=scope["path"], error=repr(error))
            await _refuse(problems.from_bug(error), send, dialect=dialect)

    async def _understood(self, row: Row, scope: Scope, receive: Receive) -> Call:
        headers = Headers(scope=scope)
        body = await read_body(receive, headers, max_bytes=row.max_body_bytes) if row.body else b""
        try:
            return Call(
                control=self._served.control,  # type: ignore[arg-type]  # without one, its rows are not routed
                gateway=self._served.gateway,
                body=parsed_body(body, row.body) if row.body else None,
                query=_query(row, scope, headers),
                path=scope["path_params"],
            )
        except ValidationError as error:
            raise Refused(problems.from_validation(error)) from error

    async def _handled(self, row: Row, call: Call, receive: Receive) -> Result:
        if row.handler is None:
            message = f"{row.name} has neither handler nor stream"
            raise errors.Bug(message)
        if not row.waits:
            return await row.handler(call)
        result: Result = await _until_left(row.handler(call), receive, self._served.closing)
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
    state = scope.get("state", {})
    if state.get("is_network"):
        if row.permission is Permission.OWNER and not state["has_token"]:
            raise Refused(entrance.no_token())
        return
    peer: Peer | None = state.get("peer")
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
                hint=f"GET {_document_of(scope)} lists everything there is"),
        send, dialect=_dialect_at(scope["path"]),
    )  # fmt: skip


def _document_of(scope: Scope) -> str:
    """Where the one who asked finds a description: through the network only that of the gateway is there."""
    is_control = scope["path"].startswith(BASE) and not scope["state"].get("is_network")
    return f"{BASE}/openapi.json" if is_control else "/v1/openapi.json"


class _Document:
    """openapi.json, for anyone."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = tuple(rows)
        self._body = b""  # made when first asked for: it costs a start a tenth of a second

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            self._body = self._body or json.dumps(openapi.document(self._rows)).encode("ascii")
            await _send(200, self._body, {"content-type": "application/json"}, send)
        else:
            allowed = {"allow": "GET"}
            only = refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "only GET", headers=allowed)
            await _refuse(only, send, dialect=_dialect_at(scope["path"]))


async def _answer(result: Result, row: Row, send: Send) -> None:
    if isinstance(result, Encoded):
        await _send(row.status, result.body, {"content-type": "application/json"}, send)
        return
    answer = result if isinstance(result, Answer) else None
    reply = result.reply if isinstance(result, Answer) else result
    status = answer.status if answer else row.status
    if reply is None:
        await _send(status, b"", {}, send)
        return
    # ASCII: a path's bytes that are not UTF-8 travel as escaped surrogates. OpenAI's API leaves out what is not there.
    plain = reply.model_dump(exclude_none=row.dialect is Dialect.OPENAI)
    body = json.dumps(plain, separators=(",", ":")).encode("ascii")
    await _send(status, body, {"content-type": "application/json", **(answer.headers if answer else {})}, send)


async def _refuse(answer: Refusal, send: Send, *, dialect: Dialect) -> None:
    status, body = answer.status, b""
    if dialect is Dialect.OPENAI:
        status, body = error_of(answer)
    else:
        body = json.dumps(answer.problem.model_dump()).encode("ascii")
    await _send(status, body, {"content-type": dialect.value, **answer.headers}, send)


def _head_refusal() -> Refusal:
    return refusal(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "the address and headers of the request are too long",
        hint="send what is long as the JSON body of a POST", headers={"connection": "close"},
    )  # fmt: skip


def head_too_large(max_bytes: int) -> bytes:
    """The whole answer to a head that is longer than *max_bytes* before it ends: no request is known yet."""
    answer = _head_refusal()
    body = json.dumps({**answer.problem.model_dump(), "detail": f"the head of the request exceeds {max_bytes} bytes"})
    head = (
        f"HTTP/1.1 {answer.status} {answer.problem.title}\r\nContent-Type: {Dialect.PROBLEM.value}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return (head + body).encode("ascii")


async def _send(status: int, body: bytes, headers: Mapping[str, str], send: Send) -> None:
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    if status != HTTPStatus.NO_CONTENT:
        raw.append((b"content-length", str(len(body)).encode("ascii")))
    raw += [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
