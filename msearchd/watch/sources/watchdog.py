"""The watchdog library as a source: macOS, Windows, and Linux by choice, with guards against what it loses.

In: its event objects, on its threads. Out: hints, on the loop's. Guards against defects measured with 7.1 on Linux:
- four ordinary operations end its reader thread for good while `is_alive()` stays true: a cookie that must come
  back, its threads' last exceptions, and the threads themselves are watched; the observer is replaced, roots scanned;
- its default mask makes reading files wake the watcher until it live-locks: a filtered one;
- on overflow it logs a line and drops what it held: the line is heard, the roots are scanned;
- files made while it enters a new directory: every new directory is scanned by us.
It has no barrier (each root's events wait in a queue of their own, up to 0.5 s): `sync` scans instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog
from watchdog import events as wd
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.watch import hints, paths
from msearchd.watch.hints import Coverage, Hint, NoCoverage, SourceHealth

log = structlog.get_logger(__name__)

_MAX_WAITING: Final = 50_000  # about 10 MB; beyond it one scan is cheaper than the events
_COOKIE_PREFIX: Final = "cookie-"
_PROBE_EVERY_S: Final = 30.0
_PROBE_DEADLINE_S: Final = 5.0

_FILTER: Final[list[type[FileSystemEvent]]] = [
    wd.FileCreatedEvent, wd.DirCreatedEvent, wd.FileMovedEvent, wd.DirMovedEvent, wd.FileDeletedEvent,
    wd.DirDeletedEvent, wd.FileClosedEvent,
]  # fmt: skip
if sys.platform != "linux":  # no "closed by its writer" there
    _FILTER.append(wd.FileModifiedEvent)

_FLAGS: Final = {
    "created": hints.CREATED,
    "closed": hints.CLOSED,
    "modified": hints.MODIFIED,
    "deleted": hints.GONE,
}


def hints_of(event: FileSystemEvent, *, root: RootId, base: bytes) -> Iterator[Hint]:
    """What an event of the root at *base* (absolute, resolved) suggests. Pure."""
    is_dir = event.is_directory
    flags = hints.DIR if is_dir else 0
    if event.event_type == "moved":
        places = [(event.src_path, hints.GONE | hints.MOVED), (event.dest_path, hints.MOVED)]
    else:
        places = [(event.src_path, _FLAGS.get(event.event_type, hints.MODIFIED))]
    for text, what in places:
        path = _below(os.fsencode(text), base)
        if path is not None:
            yield Hint(root, path, is_recursive=is_dir and not what & hints.GONE, flags=what | flags)


class WatchdogSource:
    """See the module. `notify` is called on the loop when there are hints."""

    name = "watchdog"
    seen_at = 0.0

    def __init__(self, *, notify: Callable[[], None], state_dir: Path, probe_every_s: float = _PROBE_EVERY_S) -> None:
        self.coverage: Coverage = NoCoverage()
        self._loop = asyncio.get_running_loop()
        self._notify = notify
        self._probe_dir = state_dir / "watch-probe"
        self._probe_every_s = probe_every_s
        self._roots: dict[RootId, bytes] = {}
        self._watches: dict[RootId, Any] = {}
        self._observer: Any = None
        self._waiting: deque[Hint] = deque()
        self._is_notified = False
        self._lost = ""  # why events may be missing; set by any thread
        self._cookie_seen = asyncio.Event()
        self._cookie_name = ""
        self._cookies = 0
        self._overflows = self._restarts = 0
        self._is_down = ""
        self._ear = _OverflowEar(self._on_overflow)
        self._hook = _ThreadHook(self._on_thread_death)
        self._guarding: asyncio.Task[None] | None = None
        self._trouble = asyncio.Event()

    async def add_root(self, root: Root) -> None:
        """Watch *root* and all below. Raises RetryLater where the system has no watches left."""
        if self._observer is None:
            await self._start()
        base = await asyncio.to_thread(os.path.realpath, root.path)  # it would watch a link itself
        self._roots[root.id] = base
        await self._schedule(root.id, base)

    async def remove_root(self, root_id: RootId) -> None:
        """Forget a root."""
        watch = self._watches.pop(root_id, None)
        if self._roots.pop(root_id, None) is None or watch is None or self._observer is None:
            return
        try:
            await asyncio.to_thread(self._observer.unschedule, watch)
        except Exception as error:  # noqa: BLE001 - its books are wrong (KeyError and worse): only a new one helps
            log.warning("watchdog could not let go of a folder", error=repr(error))
            self._trouble.set()

    def hints(self) -> list[Hint]:
        """All hints since the last call."""
        self._is_notified = False
        out = []
        if self._lost:
            reason, self._lost = self._lost, ""
            log.warning("watch events lost, scanning", backend=self.name, reason=reason)
            self._waiting.clear()
            out = [Hint(root, b"", is_recursive=True, flags=hints.LOST) for root in self._roots]
        while self._waiting:
            out.append(self._waiting.popleft())
        return out

    async def barrier(self, *, deadline_s: float) -> bool:
        """Never: see the module."""
        del deadline_s
        return False

    def scanned(self, root: RootId, *, took_s: float) -> None:
        """Nothing to plan."""

    def health(self) -> SourceHealth:
        """Down while its observer could not be started again."""
        return SourceHealth(
            self.name,
            state="down" if self._is_down else "ok",
            advice=self._is_down,
            overflows=self._overflows,
            restarts=self._restarts,
        )

    async def close(self) -> None:
        """Stop the observer and its guards."""
        if self._guarding is not None:
            self._guarding.cancel()
            await asyncio.gather(self._guarding, return_exceptions=True)
        self._ear.remove()
        self._hook.remove()
        observer, self._observer = self._observer, None
        if observer is not None:
            await asyncio.to_thread(_stop, observer)

    # -- observer ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self._probe_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ear.install()
        self._hook.install()
        # It warns with the repr of every watch there is, anew for each directory that moved.
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        self._observer = await asyncio.to_thread(self._new_observer)
        self._guarding = asyncio.create_task(self._guard(), name="watchdog-guard")

    def _new_observer(self) -> Any:
        try:
            observer = Observer()
            observer.schedule(_Handler(self._on_probe), str(self._probe_dir), event_filter=[wd.FileCreatedEvent])
            observer.start()
        except OSError as error:
            message = f"the system gives no more watches: {error.strerror or error}"
            raise errors.RetryLater(message, after_s=30, hint="sysctl fs.inotify.max_user_instances=512") from error
        return observer

    async def _schedule(self, root: RootId, base: bytes) -> None:
        handler = _Handler(lambda event: self._on_event(event, root, base))
        try:
            self._watches[root] = await asyncio.to_thread(
                self._observer.schedule, handler, os.fsdecode(base), recursive=True, event_filter=_FILTER
            )
        except OSError as error:
            message = f"cannot watch {os.fsdecode(base)}: {error.strerror or error}"
            raise errors.RetryLater(message, after_s=30, hint="sysctl fs.inotify.max_user_watches=1048576") from error

    async def _restart(self, *, reason: str) -> None:
        """Replace the observer. What it held is lost, so every root is scanned afterwards."""
        old, self._observer = self._observer, None
        if old is not None:
            await asyncio.to_thread(_stop, old)
        self._observer = await asyncio.to_thread(self._new_observer)
        for root, base in list(self._roots.items()):
            await self._schedule(root, base)
        self._is_down = ""
        self._restarts += 1
        self._lose(reason)

    async def _guard(self) -> None:
        """Replace the observer when it is dead, whether it says so or only no longer answers."""
        wait_s = 1.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._probe_every_s):
                    await self._trouble.wait()
            is_in_trouble = self._trouble.is_set()
            self._trouble.clear()
            if not is_in_trouble and await self._answers():
                wait_s = 1.0
                continue
            try:
                await self._restart(reason="watchdog's threads had died")
            except errors.RetryLater as error:
                self._is_down = error.sentence()
                await asyncio.sleep(wait_s)
                wait_s = min(60.0, wait_s * 2)
                self._trouble.set()

    async def _answers(self) -> bool:
        """True if a file made in our own folder comes back as an event."""
        self._cookies += 1
        self._cookie_name = f"{_COOKIE_PREFIX}{self._cookies}"
        self._cookie_seen.clear()
        cookie = self._probe_dir / self._cookie_name
        try:
            await asyncio.to_thread(cookie.touch)
            async with asyncio.timeout(_PROBE_DEADLINE_S):
                await self._cookie_seen.wait()
        except TimeoutError:
            return False
        except OSError as error:  # our own disk is full: says nothing about the watcher
            log.warning("cannot probe the watcher", error=str(error))
            return _threads_live(self._observer)
        finally:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(cookie.unlink)
        return _threads_live(self._observer)

    # -- on watchdog's threads -----------------------------------------------------------------------------------------

    def _on_event(self, event: FileSystemEvent, root: RootId, base: bytes) -> None:
        if len(self._waiting) > _MAX_WAITING:
            self._lose_soon("more events than can wait")
            return
        self._waiting.extend(hints_of(event, root=root, base=base))
        if not self._is_notified:
            self._is_notified = True
            self._soon(self._notify)

    def _on_probe(self, event: FileSystemEvent) -> None:
        if os.fsdecode(paths.name_of(os.fsencode(event.src_path))) == self._cookie_name:
            self._soon(self._cookie_seen.set)

    def _on_overflow(self) -> None:
        self._overflows += 1
        self._lose_soon("the kernel's queue overflowed")

    def _on_thread_death(self, thread: threading.Thread, error: BaseException | None) -> None:
        log.warning("watchdog thread died", thread=thread.name, error=repr(error))
        self._soon(self._trouble.set)

    def _lose_soon(self, reason: str) -> None:
        self._soon(lambda: self._lose(reason))

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._notify()

    def _soon(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(function)


class _Handler:
    """What watchdog wants of a handler is `dispatch` alone; its own base class has no types."""

    def __init__(self, take: Callable[[FileSystemEvent], None]) -> None:
        self._take = take

    def dispatch(self, event: FileSystemEvent) -> None:
        self._take(event)


class _OverflowEar(logging.Handler):
    """Hears the one line that watchdog writes when it has lost events."""

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_overflow = on_overflow

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._on_overflow()

    def install(self) -> None:
        logging.getLogger("watchdog").addHandler(self)

    def remove(self) -> None:
        logging.getLogger("watchdog").removeHandler(self)


class _ThreadHook:
    """Learns of the death of watchdog's threads; other threads' go where they went before."""

    def __init__(self, on_death: Callable[[threading.Thread, BaseException | None], None]) -> None:
        self._on_death = on_death
        self._before = threading.excepthook

    def install(self) -> None:
        self._before = threading.excepthook
        threading.excepthook = self

    def remove(self) -> None:
        if threading.excepthook is self:
            threading.excepthook = self._before

    def __call__(self, args: threading.ExceptHookArgs) -> None:
        if args.thread is not None and type(args.thread).__module__.startswith("watchdog."):
            self._on_death(args.thread, args.exc_value)
        else:
            self._before(args)


def _threads_live(observer: Any) -> bool:
    reader = getattr(observer, "_inotify_fd", None)  # Linux: the thread whose death nobody else notices
    emitters = list(getattr(observer, "emitters", ()))
    return (
        observer is not None
        and observer.is_alive()
        and all(emitter.is_alive() for emitter in emitters)
        and (reader is None or reader.is_alive())
    )


def _stop(observer: Any) -> None:
    """End every thread of an observer, also of one whose parts have died (its own stop raises KeyError then)."""
    with contextlib.suppress(Exception):
        observer.stop()
    for part in [*getattr(observer, "emitters", ()), getattr(observer, "_inotify_fd", None)]:
        with contextlib.suppress(Exception):
            if part is not None:
                part.stop()
    with contextlib.suppress(Exception):
        observer.join(timeout=2)


def _below(path: bytes, base: bytes) -> bytes | None:
    if path == base:
        return b""
    prefix = base if base.endswith(b"/") else base + b"/"
    return path[len(prefix) :] if path.startswith(prefix) else None
