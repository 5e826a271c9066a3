"""uvicorn inside our own loop: our sockets, our signals, the peer's uid, and a stop that never hangs.

In: a Control and the settings. Out: a service: `start`, `wait`, `stop`. It makes no decision about a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from msearchd import errors
from msearchd.api import app, sockets
from msearchd.api.network import Network, listen
from msearchd.api.sse import HEARTBEAT_S
from msearchd.control.gateway import Gateway
from msearchd.control.protocol import Control
from msearchd.settings.model import ApiSettings

log = structlog.get_logger(__name__)

#: Of a request's line and headers together: four paths of the greatest length, percent-encoded, and room to spare.
MAX_HEAD_BYTES = 64 * 1024
#: Calls that wait are ended at once by `closing`; this is for answers that are just being written.
_GRACE_S = 5


class _PeerProtocol(HttpToolsProtocol):
    """Notes who connected, and ends heads that are too long. No public API of uvicorn: tests/integration/test_api_server.py
    and test_api_limits.py hold it.
    """

    _head_bytes = 0  # of a head that is not whole yet
    _is_in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put the peer where requests of this connection find it: scope["state"]["peer"]."""
        connected = transport.get_extra_info("socket")
        is_network = connected.family != socket.AF_UNIX
        self.app_state = {**self.app_state, "peer": peer_of(connected), "is_network": is_network}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, but no head without end: httptools would keep all of it."""
        if self.transport.is_closing():
            return
        if not self._is_in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self._is_in_body and not self.transport.is_closing():
            self.transport.write(app.head_too_large(MAX_HEAD_BYTES))
            self.transport.close()

    def on_headers_complete(self) -> None:
        """A head that came in one piece is measured here; the guard refuses it."""
        self._is_in_body, self._head_bytes = True, 0
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self.scope["state"]["is_head_too_large"] = size > MAX_HEAD_BYTES
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are another head."""
        self._is_in_body, self._head_bytes = False, 0
        super().on_message_complete()


def peer_of(connected: socket.socket) -> app.Peer | None:
    """Uid and pid of the other end as the kernel knows them; None where it is no Unix socket or does not say."""
    if connected.family != socket.AF_UNIX:
        return None
    try:
        if sys.platform == "darwin":
            # struct xucred of LOCAL_PEERCRED (level 0, option 1): version, uid, ...; the pid is not in it.
            _, uid = struct.unpack_from("=II", connected.getsockopt(0, 1, 76))
            return app.Peer(uid=uid, pid=0)
        pid, uid, _ = struct.unpack("=iII", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError:
        return None
    return app.Peer(uid=uid, pid=pid)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()
        self.may_stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the composition root's."""
        yield

    async def main_loop(self) -> None:
        """Sleep until told to stop. The loop of uvicorn wakes ten times a second for a Date header that we omit."""
        self.is_up.set()
        await self.may_stop.wait()


class ControlServer:
    """The API as a service of the daemon: control and gateway, socket and network. After `stop` it is spent.

    *settings* None: no Unix socket. *network* None: no TCP listener. *grace_s*: whole seconds for answers at work.
    """

    def __init__(
        self, control: Control | None, settings: ApiSettings | None, *, gateway: Gateway | None = None,
        network: Network | None = None, grace_s: int = _GRACE_S, environ: MutableMapping[str, str] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._network = network
        self._environ = os.environ if environ is None else environ
        self._closing = asyncio.Event()
        self._listeners: list[sockets.Listener] = []
        application: Any = app.build(
            control, gateway=gateway, door=network.door if network else None, closing=self._closing,
            heartbeat_s=heartbeat_s,
        )  # fmt: skip
        self._server = _Server(
            uvicorn.Config(
                application, http=_PeerProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
                proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=30,
                timeout_graceful_shutdown=grace_s,
            )
        )  # fmt: skip
        self._serving: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[Any]:
        """Where it listens, as the kernel says: a path, or (host, port)."""
        return [listener.socket.getsockname() for listener in self._listeners]

    async def start(self) -> None:
        """Listen; answers from when it returns. Raises Misconfigured if a socket cannot be had."""
        try:
            await self._start()
        except BaseException:
            self._release()
            raise
        inherited = any(listener.is_inherited for listener in self._listeners)
        log.info("api listening", sockets=self.addresses, inherited=inherited)

    async def _start(self) -> None:
        if self._settings is not None:
            self._listeners += sockets.inherited(self._environ) or [sockets.bind(self._settings.socket)]
        if self._network is not None:
            self._listeners.append(listen(self._network.address))
        serving = self._server.serve(sockets=[listener.socket for listener in self._listeners])
        self._serving = asyncio.create_task(serving, name="api")
        up = asyncio.create_task(self._server.is_up.wait(), name="api-up")
        await asyncio.wait({self._serving, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            await self.wait()

    async def wait(self) -> None:
        """Return after `stop`. Raises Bug if the server ended by itself."""
        if self._serving is None:
            raise errors.Bug("the api server was not started")
        await asyncio.wait({self._serving})
        if not self._server.may_stop.is_set():
            cause = None if self._serving.cancelled() else self._serving.exception()
            raise errors.Bug(f"the api server ended by itself: {cause!r}") from cause

    async def drain(self) -> None:
        """Take no more calls; return when those at work are answered, at the latest after `grace_s`. Then `stop`."""
        self._server.may_stop.set()
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def stop(self) -> None:
        """End streams and waiting calls, finish the answers that are being written, close, remove the socket file."""
        self._closing.set()
        self._server.may_stop.set()
        if self._serving is not None:
            await asyncio.wait({self._serving})
        self._release()

    def _release(self) -> None:
        for listener in self._listeners:
            listener.socket.close()
            listener.remove_file()
