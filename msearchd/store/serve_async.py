"""Child side of the wire for an engine that waits for a network: every request is a task, searches never queue behind
writes.

In: a connected socket, the operations of `store/process.py`. Out: the same frames as `aio/serve.py` sends.
Ends with the parent: end of file on the socket ends the process.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msearchd import errors
from msearchd.aio import wire
from msearchd.aio.serve import Answer, Request

if TYPE_CHECKING:
    import socket

    from msearchd.store.backends.port import Backend
    from msearchd.store.process import Operation

#: Bulk requests at work at once: enough to hide the network, too few to load the server against other tenants.
_BULK_TASKS = 4


def serve(
    sock: socket.socket, backend: Backend, operations: Mapping[str, Operation], *, facts: Mapping[str, Any]
) -> None:
    """Say ready with *facts*, then serve until the parent closes the socket or asks to stop."""
    asyncio.run(_AsyncServer(backend, operations).run(sock, facts))


class _AsyncServer:
    def __init__(self, backend: Backend, operations: Mapping[str, Operation]) -> None:
        self._backend = backend
        self._operations = operations
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._bulk = asyncio.Semaphore(_BULK_TASKS)
        self._writer: asyncio.StreamWriter | None = None

    async def run(self, sock: socket.socket, facts: Mapping[str, Any]) -> None:
        """Read requests until the end; then finish none of them: the parent resends what it still wants."""
        sock.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=sock)
        await self._send({"id": 0, "ok": True, "more": False, "args": dict(facts)})
        try:
            while await self._take(reader):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, wire.WireError):
            pass  # the parent is gone
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._backend.close()
            self._writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> bool:
        header, body = await wire.read_frame(reader)
        request = Request(
            header["id"], header["op"], header.get("lane", wire.LANE_BULK), header.get("args", {}), memoryview(body)
        )
        if request.op == "stop":
            return False
        if request.op == "ping":
            await self._send({"id": request.id, "ok": True, "more": False, "args": {}})
        elif request.op == "cancel":
            if (task := self._tasks.get(int(request.args["target"]))) is not None:
                task.cancel()
        else:
            task = asyncio.create_task(self._answer(request), name=f"{request.op}:{request.id}")
            self._tasks[request.id] = task
            task.add_done_callback(lambda _: self._tasks.pop(request.id, None))
        return True

    async def _answer(self, request: Request) -> None:
        try:
            operation = self._operations.get(request.op)
            if operation is None:
                message = f"this child has no operation {request.op!r}"
                raise errors.Bug(message)  # noqa: TRY301 - one place answers all failures
            if request.lane == wire.LANE_INTERACTIVE:
                answer = await operation(self._backend, request, _step_aside)
            else:
                async with self._bulk:
                    answer = await operation(self._backend, request, _step_aside)
            await self._reply(request.id, answer)
        except Exception as error:  # noqa: BLE001 - all of them are answered
            if not isinstance(error, errors.MsearchError):
                traceback.print_exc()  # to stderr: the parent keeps its tail for the report
            await self._send({"id": request.id, "ok": False, "more": False, "error": errors.to_wire(error)})

    async def _reply(self, request_id: int, answer: Answer) -> None:
        await self._send({"id": request_id, "ok": True, "more": False, "args": dict(answer.args)}, answer.body)

    async def _send(self, header: wire.Header, body: bytes | memoryview = b"") -> None:
        if self._writer is not None:
            self._writer.writelines(wire.encode(header, body))  # one call: frames of two tasks never mix
            await self._writer.drain()


async def _step_aside() -> None:
    await asyncio.sleep(0)
