"""SIGTERM and SIGINT end a service in order; asked again it ends at once.

In: the event that the service waits for. Out: that event set, or the process gone. `timeout` and shells that send a signal to a
process and then to its whole group ask twice in a moment and mean it once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: A signal that follows the first one within this time is the same request.
_SAME_REQUEST_S: Final = 1.0


def set_on_stop_signals(
    stop: asyncio.Event,
    *,
    status_at_once: int,
    end: Callable[[int], object] = os._exit,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """From now on SIGTERM and SIGINT set *stop*; one more, later than a moment, calls *end* with *status_at_once*.

    Must be called on the loop's thread. Children that live no longer than their parent go with it.
    """
    loop = asyncio.get_running_loop()
    first = 0.0

    def asked(number: signal.Signals) -> None:
        nonlocal first
        if not stop.is_set():
            first = now()
            log.info("stopping", signal=number.name)
            stop.set()
        elif now() - first >= _SAME_REQUEST_S:
            log.warning("stopping at once", signal=number.name)
            end(status_at_once)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
