"""Child side of the wire: take requests, run handlers one at a time, interactive ones first.

In: a connected socket and a table of handlers. Out: one reply per request, or a stream of them.
A reader thread only reads and answers `ping`, so the child proves that it lives while a handler computes.
The child ends when the parent does: end of file on the socket ends the process.
"""

from __future__ import annotations

import heapq
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msearchd import errors
from msearchd.aio import wire

if TYPE_CHECKING:
    import socket


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the parent. `body` is raw bytes; `args` plain values."""

    id: int
    op: str
    lane: int
    args: Mapping[str, Any]
    body: memoryview


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler returns, or yields several times for a streamed reply."""

    args: Mapping[str, Any]
    body: bytes | memoryview = b""


Result = Answer | Mapping[str, Any] | None
Handler = Callable[[Request, "Turn"], Result | Iterator[Result]]


class Turn:
    """A handler's view of the queue behind it: long work steps aside between its batches."""

    def __init__(self, server: Server, request: Request) -> None:
        self._server = server
        self._request = request

    def is_cancelled(self) -> bool:
        """True once the parent no longer waits for this request."""
        return self._server.is_cancelled(self._request.id)

    def let_interactive_pass(self) -> int:
        """Run the interactive requests that arrived meanwhile; return how many. A no-op inside interactive work."""
        if self._request.lane == wire.LANE_INTERACTIVE:
            return 0
        return self._server.run_waiting(up_to_lane=wire.LANE_INTERACTIVE)


class Server:
    """The loop of a child process; owns the socket. Handlers run on the thread that calls `run`."""

    def __init__(
        self,
        sock: socket.socket,
        handlers: Mapping[str, Handler],
        *,
        on_arrival: Callable[[Request], None] | None = None,
    ) -> None:
        self._sock = sock
        # Called on the reader thread: work may be prepared while an earlier request computes. Must return at once.
        self._on_arrival = on_arrival
        self._handlers = handlers
        self._waiting: list[tuple[int, int, Request]] = []  # heap by (lane, arrival)
        self._arrivals = 0
        self._running: set[int] = set()  # more than one where interactive requests pass a bulk one
        self._cancelled: set[int] = set()
        self._state = threading.Condition()
        self._send_lock = threading.Lock()
        self._at_end = False

    def run(self, facts: Mapping[str, Any] | None = None) -> None:
        """Say ready with *facts*, then serve until the parent closes the socket or asks to stop."""
        self._send({"id": 0, "ok": True, "more": False, "args": dict(facts or {})})
        threading.Thread(target=self._read_requests, name="wire-reader", daemon=True).start()
        while (request := self._next()) is not None:
            self._run_one(request)

    def is_cancelled(self, request_id: int) -> bool:
        """True once the parent sent `cancel` for *request_id*."""
        return request_id in self._cancelled

    def _cancel(self, request_id: int) -> None:
        # Only what waits or runs: the answer of anything else is on its way, and its number would stay here for ever.
        with self._state:
            if request_id in self._running or any(request.id == request_id for _, _, request in self._waiting):
                self._cancelled.add(request_id)

    def run_waiting(self, *, up_to_lane: int) -> int:
        """Run every waiting request of lanes <= *up_to_lane*; return how many."""
        count = 0
        while True:
            with self._state:
                if not self._waiting or self._waiting[0][0] > up_to_lane:
                    return count
                request = self._pop()
            self._run_one(request)
            count += 1

    def _next(self) -> Request | None:
        with self._state:
            while not self._waiting:
                if self._at_end:
                    return None
                self._state.wait()
            return self._pop()

    def _pop(self) -> Request:
        request = heapq.heappop(self._waiting)[2]
        self._running.add(request.id)
        return request

    def _read_requests(self) -> None:
        try:
            while True:
                header, body = wire.recv_frame(self._sock)
                request = Request(
                    header["id"], header["op"], header.get("lane", wire.LANE_BULK), header.get("args", {}), body
                )
                if request.op == "ping":
                    self._send({"id": request.id, "ok": True, "more": False, "args": {}})
                elif request.op == "cancel":
                    self._cancel(int(request.args["target"]))
                elif request.op == "stop":
                    break
                else:
                    if self._on_arrival is not None:
                        self._on_arrival(request)
                    with self._state:
                        self._arrivals += 1
                        heapq.heappush(self._waiting, (request.lane, self._arrivals, request))
                        self._state.notify()
        except (EOFError, OSError):
            # The parent is gone: nobody will read an answer, and a handler may compute for minutes.
            os._exit(0)
        except Exception:  # noqa: BLE001 - a frame that is no request: without a reader nobody would ever hear from us
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(os.EX_PROTOCOL)
        with self._state:
            self._at_end = True
            self._state.notify()

    def _run_one(self, request: Request) -> None:
        try:
            if request.id in self._cancelled:
                return
            handler = self._handlers.get(request.op)
            if handler is None:
                message = f"this child has no operation {request.op!r}"
                raise errors.Bug(message)  # noqa: TRY301 - one place answers all failures
            result = handler(request, Turn(self, request))
            if isinstance(result, Iterator):
                for part in result:
                    if self.is_cancelled(request.id):
                        break
                    self._reply(request.id, part, more=True)
                result = None
            self._reply(request.id, result, more=False)
        except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
            if not isinstance(error, errors.MsearchError):
                traceback.print_exc()  # to stderr: the parent keeps its tail for the report
            self._send({"id": request.id, "ok": False, "more": False, "error": errors.to_wire(error)})
        finally:
            with self._state:
                self._running.discard(request.id)
                self._cancelled.discard(request.id)

    def _reply(self, request_id: int, result: Result, *, more: bool) -> None:
        answer = result if isinstance(result, Answer) else Answer(result or {})
        self._send({"id": request_id, "ok": True, "more": more, "args": dict(answer.args)}, answer.body)

    def _send(self, header: wire.Header, body: bytes | memoryview = b"") -> None:
        with self._send_lock:
            wire.send_frame(self._sock, header, body)
