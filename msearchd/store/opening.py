"""Which spaces are loaded in the running store process, and what happens to files that cannot be.

In: names of spaces that a call needs. Out: a process that has them loaded, each load with a deadline of its own; findings
of damage in `damages`. A new process has nothing loaded: the spaces we ensured are made again there, whatever happened to
their files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from msearchd import errors
from msearchd.aio import wire
from msearchd.aio.child import Child, DeadlineExpired, KeptChild, LinkLost
from msearchd.domain.space import Space, SpaceName
from msearchd.store import codec
from msearchd.store.backends import disk
from msearchd.store.backends.port import StoreStart
from msearchd.store.vector_store import Damage

log = structlog.get_logger(__name__)

#: Deaths of the process while it loads one space, before the space's files are blamed.
_STRIKES = 3
_END_PATIENCE_S = 5.0


class OpenSpaces:
    """The spaces of one kept store process."""

    def __init__(self, kept: KeptChild, start: StoreStart, *, load_deadline_s: Callable[[int], float]) -> None:
        self.opened: set[SpaceName] = set()  # in the process `_opened_in`
        self.damages: asyncio.Queue[Damage] = asyncio.Queue()  # at most one a space and load
        self._kept = kept
        self._start = start
        self._load_deadline_s = load_deadline_s  # of the bytes on disk
        self._ensured: dict[SpaceName, Space] = {}
        self._made: set[SpaceName] = set()  # were there once: empty again is a loss
        self._opened_in: Child | None = None
        self._strikes: dict[SpaceName, int] = {}
        self._opening = asyncio.Lock()

    async def ensure(self, space: Space) -> None:
        """Make *space* if it is not there, now and in every later process. Misconfigured, BadRequest, RetryLater."""
        had = self._ensured.get(space.name)
        self._ensured[space.name] = space
        self.opened.discard(space.name)
        try:
            await self.open([space.name])
        except (errors.Misconfigured, errors.BadRequest):  # RetryLater: the wish stands, the next call makes it
            del self._ensured[space.name]
            if had is not None:
                self._ensured[space.name] = had
            raise

    async def open(self, spaces: Sequence[SpaceName]) -> None:
        """Have *spaces* loaded in the running process; one that does not exist is none of its business."""
        child = await self._kept.ready()
        if child is self._opened_in and self.opened.issuperset(spaces):
            return
        async with self._opening:
            for space in spaces:
                while not await self._open(space):
                    pass

    def close(self, spaces: Sequence[SpaceName]) -> bool:
        """Look *spaces* up again at their next use; True if one of them counted as loaded."""
        loaded = self.opened.intersection(spaces)
        self.opened -= loaded
        return bool(loaded)

    def forget(self, space: SpaceName) -> None:
        """It is about to be dropped: its absence is no loss."""
        self._ensured.pop(space, None)
        self._made.discard(space)
        self.opened.discard(space)

    async def _open(self, space: SpaceName) -> bool:
        """Load or make *space*; False where its files had to be set aside first: try again."""
        child = await self._kept.ready()
        if child is not self._opened_in:
            self._opened_in, self.opened = child, set()
        if space in self.opened:
            return True
        ensured = self._ensured.get(space)
        op, named = ("ensure", codec.space_to_wire(ensured)) if ensured is not None else ("open", space)
        deadline_s = self._load_deadline_s(await asyncio.to_thread(self._bytes_of, space))
        try:
            reply = await self._kept.call(op, {"space": named}, lane=wire.LANE_INTERACTIVE, deadline_s=deadline_s)
        except DeadlineExpired as error:
            await seen_out(child)
            await self._blame(space, f"loading it took more than {deadline_s:.0f} s", error)
            return False
        except LinkLost as error:
            await seen_out(child)
            await self._blame(space, self._third_strike(space, child.describe_end(), error), error)
            return False
        self._strikes.pop(space, None)
        if reply.args["damage"]:
            self._report(space, reply.args["damage"])
        elif reply.args["is_new"] and space in self._made:
            self._report(space, "its points are gone: its files were removed, or the memory engine's process ended")
        if reply.args["is_there"]:
            self.opened.add(space)
            self._made.add(space)
        return True

    def _third_strike(self, space: SpaceName, end: str, error: LinkLost) -> str:
        """Why the files are to blame for the *end* of the process; raises *error* while they are not."""
        if "SIGKILL" in end or "SIGTERM" in end:  # somebody ended it: a person, or memory pressure
            raise error
        self._strikes[space] = self._strikes.get(space, 0) + 1
        if self._strikes[space] < _STRIKES:
            raise error
        return f"loading it ended the process {_STRIKES} times: {end}"

    async def _blame(self, space: SpaceName, reason: str, error: errors.MsearchError) -> None:
        """Set the files of *space* aside if the ended process was loading them; else *error* has another cause."""
        self._strikes.pop(space, None)
        args = {"space": space, "reason": reason}
        reply = await self._kept.call("blame", args, lane=wire.LANE_INTERACTIVE, deadline_s=self._start.timeout_s)
        if not reply.args["place"]:
            raise error
        self._report(space, f"{reason}; its files are in {reply.args['place']}")

    def _report(self, space: SpaceName, reason: str) -> None:
        log.error("the vectors of a space are lost and must be made again", space=space, reason=reason)
        self.damages.put_nowait(Damage(space, reason))

    def _bytes_of(self, space: SpaceName) -> int:
        return disk.disk_bytes(self._start.folder / "spaces" / space) if self._start.backend == "edge" else 0


async def seen_out(child: Child) -> None:
    """Wait until a child whose wire broke has ended: until then it would be taken for a running one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_PATIENCE_S):
            await child.link.wait_ended()
            await child.wait_ended()
