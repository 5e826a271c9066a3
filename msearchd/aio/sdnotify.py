"""Talk to the service manager: readiness, status, watchdog (sd_notify). The sockets it hands over: api/sockets.py.

Uses systemd-python where it is installed, else the standard library; both speak the protocol of sd_notify(3). Without a
service manager everything here does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

#: (state lines) -> None; never raises.
Send = Callable[[str], None]


def stdlib_send(state: str) -> None:
    """Send *state* as one datagram to $NOTIFY_SOCKET, if there is one. A lost message is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # abstract
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.send(state.encode())


def _systemd() -> Any | None:
    with contextlib.suppress(ImportError, OSError):
        return importlib.import_module("systemd.daemon")
    return None


def systemd_send(state: str) -> None:
    """As stdlib_send, through systemd-python."""
    if (daemon := _systemd()) is not None and os.environ.get("NOTIFY_SOCKET"):
        with contextlib.suppress(OSError):
            daemon.notify(state)


class Notifier:
    """What the service manager is told. `send` is chosen once; each method is one message."""

    def __init__(self, send: Send | None = None) -> None:
        self._send = send or (systemd_send if _systemd() is not None else stdlib_send)

    def ready(self, status: str = "") -> None:
        """Started, or done with reloading."""
        self._tell(READY=1, STATUS=status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._tell(STATUS=text)

    def watchdog(self) -> None:
        """Alive: to be called every `watchdog_interval_s` from the loop, after the critical services proved fresh."""
        self._tell(WATCHDOG=1)

    async def heartbeat(self) -> None:
        """Serve until cancelled: say that the loop turns, if the manager wants to know; returns where it does not."""
        every_s = watchdog_interval_s()
        while every_s is not None:
            self.watchdog()
            await asyncio.sleep(every_s)

    def reloading(self) -> None:
        """Reading the configuration again; `ready` ends it. Without the time stamp systemd would wait for ever."""
        self._tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def stopping(self, status: str = "") -> None:
        """On the way down."""
        self._tell(STOPPING=1, STATUS=status)

    def more_time(self, seconds: float) -> None:
        """Starting or stopping takes *seconds* more from now (a migration, a long drain)."""
        self._tell(EXTEND_TIMEOUT_USEC=round(seconds * 1_000_000))

    def _tell(self, **fields: str | int) -> None:
        # A line feed in a value would begin a field of its own.
        lines = [f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items() if value != ""]
        self._send("\n".join(lines))


def watchdog_interval_s(env: Mapping[str, str] | None = None) -> float | None:
    """Seconds between two `watchdog` calls, a third of what the unit allows; None where it wants none of this process."""
    env = os.environ if env is None else env
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        usec = int(env.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return usec / 3_000_000 if usec > 0 else None
