"""The store process: operations of the wire on one engine.

In: requests of `store/client.py` over the socket. Out: their answers. The engine is named by the start arguments;
embedded
engines run on `aio.serve.Server` (one call at a time, searches first), the server's on an event loop of its own.
Between the chunks of a long write, searches that arrived meanwhile go first.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import resource
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from msearchd import errors
from msearchd.aio.serve import Answer, Handler, Request, Server, Turn
from msearchd.domain.space import vectors_class
from msearchd.store import codec
from msearchd.store.backends import BACKENDS
from msearchd.store.backends.port import (
    CHUNK_CONTENTS,
    CHUNK_PAGES,
    CHUNK_POINTS,
    Backend,
    Opened,
    StoreStart,
    checked_name,
)

if TYPE_CHECKING:
    import socket

T = TypeVar("T")

#: Lets others go first between two chunks.
StepAside = Callable[[], Awaitable[None]]
Operation = Callable[[Backend, Request, StepAside], Coroutine[Any, Any, Answer]]


def main(sock: socket.socket, start: Mapping[str, Any]) -> None:
    """Entry of the child process."""
    _allow_many_files()
    told = StoreStart.from_wire(start)
    module = engine_module(told.backend)
    if getattr(module, "SUSPENDS", False):
        from msearchd.store.serve_async import serve

        serve(sock, module.open_backend(told), OPERATIONS, facts={"backend": told.backend})
        return
    backend: Backend = module.open_backend(told)
    handlers = {op: _handler(backend, operation) for op, operation in OPERATIONS.items()}
    Server(sock, handlers).run({"backend": told.backend})
    _run_now(backend.close())


def engine_module(backend: str) -> ModuleType:
    """The module of an engine. Raises Misconfigured where its package is missing."""
    try:
        return importlib.import_module(BACKENDS[backend])
    except ImportError as error:
        raise errors.Misconfigured(
            f"the vector store {backend} needs a package that is not installed: {error.name or error}",
            key=f"engine:{backend}",
            hint="pip install 'msearchd[store]'",
        ) from error


def _handler(backend: Backend, operation: Operation) -> Handler:
    def handle(request: Request, turn: Turn) -> Answer:
        async def step_aside() -> None:
            turn.let_interactive_pass()

        return _run_now(operation(backend, request, step_aside))

    return handle


def _run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends: embedded engines need no event loop, and searches no task switch."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    message = "an embedded engine suspended"
    raise errors.Bug(message)


def _allow_many_files() -> None:
    # A segment keeps about ten files open; the usual soft limit of 1,024 is for select(), which nobody here calls.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# -- operations ------------------------------------------------------------------------------------------------------


def _opened(opened: Opened) -> Answer:
    return Answer({"is_there": opened.is_there, "damage": opened.damage, "is_new": opened.is_new})


async def _open(backend: Backend, request: Request, _: StepAside) -> Answer:
    return _opened(await backend.open(checked_name(request.args["space"])))


async def _ensure(backend: Backend, request: Request, _: StepAside) -> Answer:
    space = codec.space_from_wire(request.args["space"])
    checked_name(space.name)
    return _opened(await backend.ensure(space))


async def _upsert(backend: Backend, request: Request, step_aside: StepAside) -> Answer:
    args = request.args
    rows = tuple(args["rows"]) if args["rows"] is not None else None
    try:
        is_sparse = args["sparse"]
        vectors = vectors_class(is_sparse=is_sparse)(request.body, args["count"], args["dim"], rows)
        size = CHUNK_POINTS if rows is None or is_sparse else CHUNK_PAGES
        pieces = codec.chunks_of(codec.points_from_wire(args["points"]), vectors, size=size)
    except ValueError as error:
        raise errors.BadRequest(str(error)) from error
    for number, (points, part) in enumerate(pieces):
        if number:
            await step_aside()
        await backend.upsert(checked_name(args["space"]), points, part)
    return Answer({})


async def _set_dirs(backend: Backend, request: Request, _: StepAside) -> Answer:
    args = request.args
    await backend.set_dirs(checked_name(args["space"]), UUID(bytes=args["content"]), args["dirs"])
    return Answer({})


async def _delete_contents(backend: Backend, request: Request, step_aside: StepAside) -> Answer:
    contents = [UUID(bytes=content) for content in request.args["contents"]]
    for start in range(0, len(contents), CHUNK_CONTENTS):
        if start:
            await step_aside()
        await backend.delete_contents(checked_name(request.args["space"]), contents[start : start + CHUNK_CONTENTS])
    return Answer({})


async def _search(backend: Backend, request: Request, _: StepAside) -> Answer:
    searches = codec.searches_from_wire(request.args["searches"], request.body)
    return Answer({"hits": codec.hits_to_wire(await backend.search(searches))})


async def _count(backend: Backend, request: Request, _: StepAside) -> Answer:
    return Answer({"count": await backend.count(checked_name(request.args["space"]))})


async def _contents(backend: Backend, request: Request, _: StepAside) -> Answer:
    page, after = await backend.contents_page(checked_name(request.args["space"]), request.args["after"])
    return Answer({"page": [[content.bytes, count] for content, count in page.items()], "after": after})


async def _flush(backend: Backend, _: Request, __: StepAside) -> Answer:
    await backend.flush()
    return Answer({})


async def _optimize(backend: Backend, _: Request, __: StepAside) -> Answer:
    await backend.optimize()
    return Answer({})


async def _spaces(backend: Backend, _: Request, __: StepAside) -> Answer:
    return Answer({"spaces": await backend.spaces()})


async def _drop(backend: Backend, request: Request, _: StepAside) -> Answer:
    await backend.drop(checked_name(request.args["space"]))
    return Answer({})


async def _blame(backend: Backend, request: Request, _: StepAside) -> Answer:
    return Answer({"place": await backend.blame(checked_name(request.args["space"]), request.args["reason"])})


async def _health(backend: Backend, _: Request, __: StepAside) -> Answer:
    states = await backend.health()
    return Answer({"pid": os.getpid(), "spaces": {name: dataclasses.asdict(state) for name, state in states.items()}})


#: Every operation of the wire.
OPERATIONS: dict[str, Operation] = {
    "open": _open,
    "ensure": _ensure,
    "upsert": _upsert,
    "set_dirs": _set_dirs,
    "delete_contents": _delete_contents,
    "search": _search,
    "count": _count,
    "contents": _contents,
    "flush": _flush,
    "optimize": _optimize,
    "spaces": _spaces,
    "drop": _drop,
    "blame": _blame,
    "health": _health,
}
