"""Which source watches which root. Made when first needed; the daemon imports no backend that it does not use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msearchd import errors
from msearchd.watch.hints import SourceHealth, WatchSource
from msearchd.watch.sources.polling import PollingSource

_WORST: Final = {"ok": 0, "degraded": 1, "down": 2}


class Sources:
    """The event source of local roots and the polling of the others."""

    def __init__(
        self, backend: str, *, state_dir: Path, notify: Callable[[], None], watch_modify: bool = False
    ) -> None:
        self._backend = resolve_backend(backend)
        self._state_dir = state_dir
        self._watch_modify = watch_modify
        self._notify = notify
        self._local: WatchSource | None = None
        self._polling: PollingSource | None = None

    def for_root(self, *, is_network: bool) -> WatchSource:
        """The source for a root: events where the kernel sees every change, else the clock."""
        if is_network or self._backend == "polling":
            return self.polling()
        if self._local is None:
            self._local = self._make()
        return self._local

    def polling(self) -> PollingSource:
        """The source that goes by the clock."""
        if self._polling is None:
            self._polling = PollingSource(notify=self._notify)
        return self._polling

    def all(self) -> list[WatchSource]:
        """Those in use."""
        both: tuple[WatchSource | None, ...] = (self._local, self._polling)
        return [source for source in both if source is not None]

    def health(self) -> SourceHealth:
        """The worst of all, with the sums."""
        found = [source.health() for source in self.all()]
        if not found:
            return SourceHealth(self._backend)
        worst = max(found, key=lambda health: _WORST[health.state])
        return SourceHealth(
            backend="+".join(health.backend for health in found),
            state=worst.state,
            advice=worst.advice,
            watched_dirs=sum(health.watched_dirs for health in found),
            unwatched_dirs=sum(health.unwatched_dirs for health in found),
            watch_limit=max(health.watch_limit for health in found),
            overflows=sum(health.overflows for health in found),
            restarts=sum(health.restarts for health in found),
            last_loss=max(health.last_loss for health in found),
        )

    async def close(self) -> None:
        """Stop all."""
        for source in self.all():
            await source.close()

    def _make(self) -> WatchSource:
        if self._backend == "inotify":
            from msearchd.watch.sources.inotify import InotifySource

            return InotifySource(notify=self._notify, state_dir=self._state_dir, watch_modify=self._watch_modify)
        if self._backend == "fanotify":
            from msearchd.watch.sources.fanotify import FanotifySource

            return FanotifySource(notify=self._notify, state_dir=self._state_dir, watch_modify=self._watch_modify)
        from msearchd.watch.sources.watchdog import WatchdogSource

        return WatchdogSource(notify=self._notify, state_dir=self._state_dir)


def resolve_backend(backend: str) -> str:
    """The backend that a setting means on this system. Raises Misconfigured where it cannot be had."""
    if backend == "auto":
        return "inotify" if sys.platform == "linux" else "watchdog"
    if backend == "inotify" and sys.platform != "linux":
        message = "inotify exists on Linux only"
        raise errors.Misconfigured(message, key="watch.backend", hint='set watch.backend = "auto"')
    if backend == "fanotify":
        _require_fanotify()
    return backend


def _require_fanotify() -> None:
    from msearchd.watch.sources import fanotify, fanotify_abi

    if sys.platform != "linux":
        raise fanotify.missing_privileges()
    try:
        os.close(fanotify_abi.init())
    except (OSError, AttributeError) as error:
        raise fanotify.missing_privileges() from error
