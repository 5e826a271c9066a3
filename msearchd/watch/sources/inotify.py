"""Linux's own events, without what loses them.

    kernel queue ──▶ drain (a process) ──pipe──▶ events ──▶ hints            the scanner ──enter(fd)──▶ watches

In: raw events, and every directory that the scanner lists. Out: hints. The descriptor is made here and drained by a
tiny process; watches are added from the scanning thread, on the directory that is open, before it is listed. A file made in
our own folder on the same descriptor is a barrier: once its event is read, so is everything that came before (one
queue per descriptor). Overflow, a dead or stopped drain, and watches that the limit refuses become hints to scan.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from msearchd import errors
from msearchd.domain.asset import Root, RootId
from msearchd.watch import hints, paths
from msearchd.watch.backlog import HintBacklog
from msearchd.watch.hints import Coverage, Entered, Hint, SourceHealth
from msearchd.watch.sources import inotify_abi as abi
from msearchd.watch.sources.cookies import Cookies
from msearchd.watch.sources.drain_process import DrainProcess
from msearchd.watch.sources.gather import gather
from msearchd.watch.sources.sweep import Sweep
from msearchd.watch.sources.watch_tree import Place, WatchTree

log = structlog.get_logger(__name__)

# Without OPEN and ACCESS (reading files must not wake us) and MODIFY (a slot of the queue per write; a file that is
# held open for days, or truncated by path, waits for the scan).
_MASK: Final = (
    abi.CREATE | abi.CLOSE_WRITE | abi.MOVED_FROM | abi.MOVED_TO | abi.DELETE | abi.ATTRIB | abi.ONLYDIR
    | abi.EXCL_UNLINK
)  # fmt: skip
_ROOT_MASK: Final = _MASK | abi.DELETE_SELF | abi.MOVE_SELF
_PROBE_EVERY_S: Final = 30.0
_PROBE_DEADLINE_S: Final = 5.0
_COOKIE_EVERY: Final = 120  # probes


class InotifySource:
    """See the module. `notify` is called when there are hints. `watch_modify`: also wake at every write."""

    name = "inotify"

    def __init__(
        self,
        *,
        notify: Callable[[], None],
        state_dir: Path,
        watch_modify: bool = False,
        probe_every_s: float = _PROBE_EVERY_S,
        probe_deadline_s: float = _PROBE_DEADLINE_S,
    ) -> None:
        extra = abi.MODIFY if watch_modify else 0
        self._masks = (_ROOT_MASK | extra, _MASK | extra)
        self._notify = notify
        self._cookies = Cookies(state_dir / "watch-cookies")
        self._probe_every_s, self._probe_deadline_s = probe_every_s, probe_deadline_s
        self._fd = -1
        self._cookie_wd = -1
        self._bases: dict[RootId, bytes] = {}
        self._tree = WatchTree(self._unwatch)
        self._hints = HintBacklog()
        self._drain: DrainProcess | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sweep = Sweep(self._tree, self._bases, self._hint)
        self._overflows = self._restarts = 0
        self._limit = abi.watch_limit()
        self._is_down = ""
        self._is_closed = False
        self._last_loss = (0, "")
        self.seen_at = 0.0
        self.coverage: Coverage = _Coverage(self._enter, self._tree, self._enter_children)

    async def add_root(self, root: Root) -> None:
        """Ready to be entered. Raises RetryLater where the system has no inotify instance left."""
        if self._fd < 0:
            await self._start()
        self._bases[root.id] = root.path
        self._tree.add_root(root.id)

    async def remove_root(self, root_id: RootId) -> None:
        """Drop its watches."""
        self._bases.pop(root_id, None)
        await asyncio.to_thread(self._tree.remove_root, root_id)

    def hints(self) -> list[Hint]:
        """All hints since the last call."""
        return self._hints.take()

    async def barrier(self, *, deadline_s: float) -> bool:
        """True once every event of operations that ended before the call is among the hints.

        False: not in time, or there are folders without a watch, of which no event tells.
        """
        return await self._answers(deadline_s=deadline_s) and not self._unwatched_count()

    def scanned(self, root: RootId, *, took_s: float) -> None:
        """Nothing to plan."""

    def health(self) -> SourceHealth:
        """Degraded while the limit leaves directories without a watch; down while the drain cannot be started."""
        unwatched = self._unwatched_count()
        watched = self._tree.watched_count
        advice = self._is_down
        if not advice and unwatched:
            enough = 1 << max(16, (2 * (watched + unwatched)).bit_length())
            advice = (
                f"{unwatched} folders are looked at by the clock, because the system's limit of {self._limit} watches"
                f" is used up: sudo sysctl fs.inotify.max_user_watches={enough}"
            )
        state = "down" if self._is_down else "degraded" if unwatched else "ok"
        return SourceHealth(
            self.name,
            state=state,  # type: ignore[arg-type]
            advice=advice,
            watched_dirs=watched,
            unwatched_dirs=unwatched,
            watch_limit=self._limit,
            overflows=self._overflows,
            restarts=self._restarts,
            last_loss=self._last_loss,
        )

    async def close(self) -> None:
        """End the drain, close the descriptor (the kernel drops its watches with it)."""
        self._is_closed = True  # a reader that ends from now on has no successor
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._drain is not None:
            await self._drain.stop()
            self._drain = None
        if self._fd >= 0:
            with self._tree.lock:
                fd, self._fd = self._fd, -1
            await asyncio.to_thread(os.close, fd)  # many watches take a while to drop

    # -- start and guard -----------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        try:
            self._fd, self._cookie_wd = await asyncio.to_thread(_open_descriptor, self._cookies)
        except OSError as error:
            limit = "max_user_instances=512" if error.errno == errno.EMFILE else "max_user_watches=1048576"
            message = f"cannot use inotify: {error.strerror}"
            raise errors.RetryLater(message, after_s=30, hint=f"sudo sysctl fs.inotify.{limit}") from error
        self._drain = await DrainProcess.start(self._fd, self._on_events, self._on_drain_end)
        self._tasks = [
            asyncio.create_task(self._guard(), name="inotify-guard"),
            asyncio.create_task(self._sweep.run(), name="inotify-sweep"),
        ]

    async def _guard(self) -> None:
        """Ask for a sign of life; replace a drain that gives none.

        The cookie is a write to somebody's disk: it is made only if the kernel holds unread events, or once an hour.
        """
        failures, looks = 0, 0
        while True:
            await asyncio.sleep(self._probe_every_s if not failures else min(60.0, 2.0**failures))
            looks += 1
            if not failures and looks % _COOKIE_EVERY and not abi.unread_bytes(self._fd):
                continue
            if await self._answers(deadline_s=self._probe_deadline_s):
                failures, self._is_down = 0, ""
                continue
            failures += 1
            if failures > 2:
                self._is_down = "the event reader does not answer; folders are scanned instead"
            log.warning("the event reader does not answer, replacing it", failures=failures)
            if self._drain is not None:
                self._drain.kill()  # its end starts another

    async def _answers(self, *, deadline_s: float) -> bool:
        return self._fd >= 0 and await self._cookies.wait(deadline_s=deadline_s)

    def _unwatched_count(self) -> int:
        return len(self._tree.unwatched) - len(self._tree.elsewhere)

    def _on_drain_end(self, reason: str) -> None:
        """The drain is gone with what it held: another one, and a scan. The watches and the kernel's queue live on."""
        if self._is_closed:
            return
        self._restarts += 1
        log.warning("the event reader ended, starting another", reason=reason)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(self._restart(), name="inotify-restart"))

    async def _restart(self) -> None:
        wait_s = 0.0
        while True:
            await asyncio.sleep(wait_s)
            old, self._drain = self._drain, None
            if old is not None:
                await old.stop()
            try:
                self._drain = await DrainProcess.start(self._fd, self._on_events, self._on_drain_end)
            except errors.MsearchError as error:
                self._is_down = error.sentence()
                wait_s = min(60.0, max(1.0, wait_s * 2))
                continue
            self._lost("the event reader was replaced")
            return

    # -- events (loop) -------------------------------------------------------------------------------------------------

    def _on_events(self, buffer: bytes) -> int:
        # The books may change meanwhile: what moves is compared after the move, and these events came before it.
        taken = gather(buffer, place_of=self._place, put_all=self._hints.put_all, rare=self._on_rare_event)
        if self._hints:
            self._notify()
        return taken

    def _place(self, wd: int) -> Place | None:
        if wd == self._cookie_wd or wd < 0:
            return None
        return self._tree.place_of(wd, now_s=time.time())

    def _on_rare_event(self, wd: int, mask: int, name: bytes, place: Place | None) -> None:
        if wd == self._cookie_wd:
            self._cookies.take(name)
        elif wd == abi.STAMP_WD:
            self.seen_at = int(name) / 1e6
        elif mask & abi.Q_OVERFLOW:
            self._overflows += 1
            self._lost("the kernel's queue overflowed")
        elif mask & abi.IGNORED:
            ended = self._tree.ignored(wd)
            if ended is not None and not ended[1]:
                self._hint(Hint(*ended, is_recursive=True, flags=hints.LOST | hints.DIR))
        elif place is not None:
            self._on_self_event(place, mask)
        elif wd > self._tree.highest_wd:  # else we ended this watch: what it speaks of is handled
            self._lost("an event came of a watch that is not in the books")

    def _on_self_event(self, place: Place, mask: int) -> None:
        if mask & abi.UNMOUNT or not place[1]:  # a root that moved, went, or had its rights changed
            self._hints.put(Hint(*place, is_recursive=True, flags=hints.LOST | hints.DIR))

    def _hint(self, hint: Hint) -> None:
        self._hints.put(hint)
        self._notify()

    def _lost(self, reason: str) -> None:
        log.warning("watch events lost, scanning", backend=self.name, reason=reason)
        self._cookies.lost()
        self._last_loss = (time.time_ns() // 1_000_000, f"{reason}: everything was compared once more")
        for root in self._bases:
            self._hints.put(Hint(root, b"", is_recursive=True, flags=hints.LOST | hints.DIR))
        self._notify()

    # -- watches (scanning thread) -------------------------------------------------------------------------------------

    def _enter(self, root: RootId, path: bytes, fd: int) -> Entered:
        is_new, was = self._tree.put(
            (root, path), lambda: self._watch(path, fd), is_elsewhere=lambda place: self._stands_at(place, fd)
        )
        return Entered(is_new=is_new, was=was)

    def _enter_children(self, root: RootId, folder: bytes, fd: int, names: Sequence[bytes]) -> Sequence[bytes]:
        prefix, mask, add = b"/proc/self/fd/%d/" % fd, self._masks[1] | abi.DONT_FOLLOW, abi.add_watch
        return self._tree.put_children((root, folder), names, lambda name: add(self._fd, prefix + name, mask))

    def _watch(self, path: bytes, fd: int) -> int | None:
        """Watch exactly the inode behind *fd*. None where the limit is reached."""
        if self._fd < 0:
            return None
        mask = self._masks[1] if path else self._masks[0]
        try:
            return abi.add_watch(self._fd, b"/proc/self/fd/%d" % fd, mask)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.ENOMEM}:
                return None
            raise

    def _unwatch(self, wd: int) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                abi.rm_watch(self._fd, wd)

    def _stands_at(self, place: Place, fd: int) -> bool:
        base = self._bases.get(place[0])
        if base is None:
            return False
        try:
            there = os.lstat(paths.join(base, place[1]))
        except OSError:
            return False
        here = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


class _Coverage:
    def __init__(
        self,
        enter: Callable[[RootId, bytes, int], Entered],
        tree: WatchTree,
        enter_children: Callable[[RootId, bytes, int, Sequence[bytes]], Sequence[bytes]],
    ) -> None:
        self.enter = enter
        self.leave = tree.drop
        self.strangers = tree.strangers
        self.enter_children = enter_children


def _open_descriptor(cookies: Cookies) -> tuple[int, int]:
    """(inotify descriptor, watch of our own folder). Raises OSError, Misconfigured."""
    if not Path("/proc/self/fd").is_dir():
        message = "/proc is not mounted, and watches are added through it"
        raise errors.Misconfigured(message, key="watch.backend", hint='set watch.backend = "watchdog"')
    folder = cookies.prepare()
    fd = abi.init()
    try:
        return fd, abi.add_watch(fd, folder, abi.CREATE | abi.ONLYDIR)
    except OSError:
        os.close(fd)
        raise
