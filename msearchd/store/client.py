"""The daemon's vector store: a thin client of the store process.

In: the calls of `store/vector_store.py`. Out: their results; a process that died is started again and the call resent
(ids are pure, so twice is once). Imports no engine, no numpy: vectors pass through as bytes.
Files of a space that cannot be loaded, or hang the load, are set aside by the process; `next_damage` tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from msearchd import errors
from msearchd.aio import wire
from msearchd.aio.child import Child, ChildSpec, DeadlineExpired, KeptChild, Limits, LinkLost, Reply
from msearchd.domain.space import Point, Space, SpaceName, Vectors
from msearchd.settings.model import StoreSettings
from msearchd.store import codec
from msearchd.store.backends import growth
from msearchd.store.backends.port import StoreStart
from msearchd.store.vector_store import Damage, ScoredPoint, SpaceHealth, StoreHealth, VectorSearch

log = structlog.get_logger(__name__)

#: A whole rewrite of a large space; it holds the process for its duration.
_OPTIMIZE_DEADLINE_S = 1800.0
_HEALTH_PATIENCE_S = 2.0
_END_PATIENCE_S = 5.0
_CLOSE_PATIENCE_S = 10.0
#: Deaths of the process while it loads one space, before the space's files are blamed.
_STRIKES = 3
#: Long calls at once: an embedded engine does one thing at a time, a network is worth hiding.
_SERVER_CALLS = 4
_POINTS_PER_S = 200.0  # slowest ingest that still counts as alive; measured 5,000 and more


def chosen_backend(settings: StoreSettings) -> str:
    """The engine that *settings* ask for. Raises Misconfigured where a server is asked for without a URL."""
    if settings.backend == "server" and not settings.url:
        raise errors.Misconfigured(
            "store.backend is server, but store.url is empty",
            key="store.url",
            hint='set url = "http://host:6333" in [store], or backend = "edge"',
        )
    if settings.backend == "auto":
        return "server" if settings.url else "edge"
    return settings.backend


def start_of(settings: StoreSettings, data_dir: Path) -> StoreStart:
    """What the process is told at its start."""
    backend = chosen_backend(settings)
    tenant = settings.tenant or (socket.gethostname() if backend == "server" else "")
    return StoreStart(
        backend=backend,
        folder=data_dir / "vectors",
        url=settings.url,
        api_key_file=settings.api_key_file,
        grpc_port=settings.grpc_port,
        shard_number=settings.shard_number,
        replication_factor=settings.replication_factor,
        tenant=tenant,
        min_free_bytes=settings.min_free_mb * 1024 * 1024,
        quantize_above=settings.quantize_above,
        timeout_s=settings.timeout_s,
    )


@dataclass(frozen=True, slots=True)
class _Request:
    op: str
    args: Mapping[str, Any]
    body: bytes | memoryview
    spaces: Sequence[SpaceName]
    lane: int
    deadline_s: float


class StoreProcess:
    """VectorStore over one kept child process. Started at the first call; `close` ends it."""

    def __init__(
        self,
        settings: StoreSettings,
        data_dir: Path,
        limits: Limits = Limits(),
        *,
        load_deadline_s: Callable[[int], float] = growth.load_deadline_s,
    ) -> None:
        self._settings = settings
        self._load_deadline_s = load_deadline_s  # of the bytes on disk
        self._start = start_of(settings, data_dir)
        spec = ChildSpec(name="store", module="msearchd.store.process", start=self._start.to_wire(), limits=limits)
        self._kept = KeptChild(spec)
        self._known: dict[
            SpaceName, Space
        ] = {}  # ensured by us: made again after a restart, whatever happened to the files
        self._opened: set[SpaceName] = set()
        self._made: set[SpaceName] = set()  # were there once: empty again is a loss
        self._opened_in: Child | None = None
        self._strikes: dict[SpaceName, int] = {}
        self._opening = asyncio.Lock()
        # Few long calls at a time: a deadline counts a call's own work, not the queue before it.
        self._bulk = asyncio.Semaphore(_SERVER_CALLS if self._start.backend == "server" else 1)
        self._damages: asyncio.Queue[Damage] = asyncio.Queue()  # at most one a space and load
        self._last_health = StoreHealth(self._start.backend, is_ok=False, reason="not started yet")
        self._optimizing = 0
        self._is_closed = False

    def __repr__(self) -> str:
        state = f"pid {child.pid}" if (child := self._kept.child) is not None else "not running"
        spaces, restarts = len(self._opened), self._kept.restarts
        return f"<StoreProcess {self._start.backend} {state} | {spaces} spaces open | {restarts} restarts>"

    @property
    def pid(self) -> int | None:
        """Process id of the store process while it runs."""
        child = self._kept.child
        return child.pid if child is not None else None

    # -- VectorStore -------------------------------------------------------------------------------------------------

    async def ensure(self, space: Space) -> None:
        """Create the space if it is not there. Misconfigured where it exists with another dimension."""
        had = self._known.get(space.name)
        self._known[space.name] = space
        self._opened.discard(space.name)
        try:
            await self._with_spaces([space.name])
        except (errors.Misconfigured, errors.BadRequest):  # RetryLater: the wish stands, the next call makes it
            if had is None:
                del self._known[space.name]
            else:
                self._known[space.name] = had
            raise

    async def upsert(self, space: SpaceName, points: Sequence[Point], vectors: Vectors) -> None:
        """Store points; acknowledged means safe against the death of any process."""
        if not points:
            return
        args = {
            "space": space,
            "points": codec.points_to_wire(points),
            "count": vectors.count,
            "dim": vectors.dim,
            "rows": list(vectors.rows) if vectors.rows is not None else None,
        }
        deadline_s = self._settings.timeout_s + vectors.count / _POINTS_PER_S
        await self._long_call("upsert", args, vectors.data, spaces=[space], deadline_s=deadline_s)

    async def set_dirs(self, space: SpaceName, content: UUID, dirs: Sequence[int]) -> None:
        """Replace the folder list of all points of *content*."""
        await self._long_call(
            "set_dirs", {"space": space, "content": content.bytes, "dirs": list(dirs)}, spaces=[space]
        )

    async def delete_contents(self, space: SpaceName, contents: Sequence[UUID]) -> None:
        """Delete all points of *contents*."""
        if contents:
            args = {"space": space, "contents": [content.bytes for content in contents]}
            await self._long_call("delete_contents", args, spaces=[space])

    async def search(self, searches: Sequence[VectorSearch]) -> list[list[ScoredPoint]]:
        """Answer several questions in one round trip, before any queued write."""
        if not searches:
            return []
        rows, body = codec.searches_to_wire(searches)
        spaces = list(dict.fromkeys(search.space for search in searches))
        reply = await self._call(
            "search",
            {"searches": rows},
            body,
            spaces=spaces,
            lane=wire.LANE_INTERACTIVE,
            deadline_s=self._hang_deadline_s(),
        )
        return codec.hits_from_wire(reply.args["hits"])

    async def count(self, space: SpaceName) -> int:
        """Exact number of points; 0 for an unknown space."""
        return int((await self._long_call("count", {"space": space}, spaces=[space])).args["count"])

    async def contents(self, space: SpaceName) -> AsyncIterator[dict[UUID, int]]:
        """Stream {content: points} in batches; other calls go on between them."""
        after = ""
        while True:
            reply = await self._long_call("contents", {"space": space, "after": after}, spaces=[space])
            if page := {UUID(bytes=content): count for content, count in reply.args["page"]}:
                yield page
            if not (after := reply.args["after"]):
                return

    async def flush(self) -> None:
        """Everything before is safe against a power cut when this returns."""
        await self._long_call("flush")

    async def optimize(self) -> None:
        """Quantize and merge what has grown. A search waits for one engine call at most (0.8 s for 16,384 new
        points).
        """
        self._optimizing += 1
        try:
            await self._long_call("optimize", deadline_s=_OPTIMIZE_DEADLINE_S)
        finally:
            self._optimizing -= 1

    async def spaces(self) -> list[SpaceName]:
        """Names of the spaces that exist."""
        return [SpaceName(name) for name in (await self._long_call("spaces")).args["spaces"]]

    async def drop(self, space: SpaceName) -> None:
        """Delete a space and its files."""
        self._known.pop(space, None)
        self._opened.discard(space)
        self._made.discard(space)
        await self._long_call("drop", {"space": space})

    async def health(self) -> StoreHealth:
        """State now. While one long engine call runs, the last state with the reason "busy"."""
        try:
            async with asyncio.timeout(_HEALTH_PATIENCE_S):
                reply = await self._call("health", lane=wire.LANE_INTERACTIVE, deadline_s=self._hang_deadline_s())
            self._last_health = self._healthy({SpaceName(k): SpaceHealth(**v) for k, v in reply.args["spaces"].items()})
        except TimeoutError:
            if self._kept.child is None:
                return self._unwell("its process is starting")
            return self._healthy(self._last_health.spaces, reason="busy")
        except errors.MsearchError as error:
            return self._unwell(error.sentence())
        except Exception as error:
            log.exception("store health failed")
            return self._unwell(f"{type(error).__name__}: {error}")
        return self._last_health

    async def close(self) -> None:
        """Flush and end the process; later calls raise RetryLater."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._kept.child is not None:
            # The log keeps what a flush could not sync, or did not get the time to.
            with contextlib.suppress(errors.MsearchError, TimeoutError):
                async with asyncio.timeout(_CLOSE_PATIENCE_S):
                    await self._long_call("flush")
        await self._kept.stop()

    # -- beyond the protocol -----------------------------------------------------------------------------------------

    async def next_damage(self) -> Damage:
        """Wait until the files of a space were found damaged and set aside. One caller: whoever repairs."""
        return await self._damages.get()

    def damages(self) -> list[Damage]:
        """What `next_damage` would return now, without waiting; empties it."""
        found = []
        while not self._damages.empty():
            found.append(self._damages.get_nowait())
        return found

    def _hang_deadline_s(self) -> float:
        """Patience with a call that nothing but one engine call can hold up. On its expiry the process is killed."""
        return _OPTIMIZE_DEADLINE_S if self._optimizing else self._settings.timeout_s

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _long_call(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        spaces: Sequence[SpaceName] = (),
        deadline_s: float | None = None,
    ) -> Reply:
        async with self._bulk:
            return await self._call(
                op,
                args,
                body,
                spaces=spaces,
                lane=wire.LANE_BULK,
                deadline_s=self._settings.timeout_s if deadline_s is None else deadline_s,
            )

    async def _call(
        self,
        op: str,
        args: Mapping[str, Any] | None = None,
        body: bytes | memoryview = b"",
        *,
        spaces: Sequence[SpaceName] = (),
        lane: int,
        deadline_s: float,
    ) -> Reply:
        """One request; once more on a new process if this one died under it, or where the space had to be made again."""
        request = _Request(op, dict(args or {}), body, spaces, lane, deadline_s)
        try:
            return await self._once(request)
        except LinkLost as error:
            if self._is_closed:
                raise
            log.warning("store process ended during a call, it is sent again", op=op, reason=str(error))
        except errors.NotFound:  # somebody removed the collection on the server
            gone = [space for space in spaces if space in self._opened]
            self._opened.difference_update(gone)
            if not gone:
                raise
        return await self._once(request)

    async def _once(self, request: _Request) -> Reply:
        if request.spaces:
            await self._with_spaces(request.spaces)
        child = await self._kept.ready()
        try:
            return await self._kept.call(
                request.op, request.args, request.body, deadline_s=request.deadline_s, lane=request.lane
            )
        except (LinkLost, DeadlineExpired):
            await _see_out(child)
            raise

    async def _with_spaces(self, spaces: Sequence[SpaceName]) -> None:
        """Have *spaces* loaded in the running process, each with a deadline of its own."""
        child = await self._kept.ready()
        if child is self._opened_in and self._opened.issuperset(spaces):
            return
        async with self._opening:
            for space in spaces:
                await self._open(space)

    async def _open(self, space: SpaceName) -> None:
        while True:
            child = await self._kept.ready()
            if child is not self._opened_in:
                self._opened_in, self._opened = child, set()
            if space in self._opened:
                return
            if await self._try_open(space, child):
                return

    async def _try_open(self, space: SpaceName, child: Child) -> bool:
        """Load or make *space*; False where its files had to be set aside first: try again."""
        known = self._known.get(space)
        op, named = ("ensure", codec.space_to_wire(known)) if known is not None else ("open", space)
        deadline_s = self._load_deadline_s(await asyncio.to_thread(self._space_bytes, space))
        try:
            reply = await self._kept.call(op, {"space": named}, lane=wire.LANE_INTERACTIVE, deadline_s=deadline_s)
        except DeadlineExpired as error:
            await _see_out(child)
            await self._blame(space, f"loading it took more than {deadline_s:.0f} s", error)
            return False
        except LinkLost as error:
            await _see_out(child)
            end = child.describe_end()
            if (
                "SIGKILL" in end or "SIGTERM" in end
            ):  # somebody ended it (a person, memory pressure): not the files' fault
                raise
            self._strikes[space] = self._strikes.get(space, 0) + 1
            if self._strikes[space] < _STRIKES:
                raise
            await self._blame(space, f"loading it ended the process {_STRIKES} times: {end}", error)
            return False
        self._strikes.pop(space, None)
        if reply.args["damage"]:
            self._report(space, reply.args["damage"])
        elif reply.args["is_new"] and space in self._made:
            self._report(space, "its points are gone: its files were removed, or the memory engine's process ended")
        if reply.args["is_there"]:
            self._opened.add(space)
            self._made.add(space)
        return True

    async def _blame(self, space: SpaceName, reason: str, error: errors.MsearchError) -> None:
        """Set the files of *space* aside if the ended process was loading them; else *error* has another cause."""
        self._strikes.pop(space, None)
        args = {"space": space, "reason": reason}
        reply = await self._kept.call("blame", args, lane=wire.LANE_INTERACTIVE, deadline_s=self._settings.timeout_s)
        if not reply.args["place"]:
            raise error
        self._report(space, f"{reason}; its files are in {reply.args['place']}")

    def _report(self, space: SpaceName, reason: str) -> None:
        log.error("vectors were damaged and set aside; they are made again", space=space, reason=reason)
        self._damages.put_nowait(Damage(space, reason))

    def _space_bytes(self, space: SpaceName) -> int:
        if self._start.backend != "edge":
            return 0
        from msearchd.store.backends.disk import disk_bytes

        return disk_bytes(self._start.folder / "spaces" / space)

    def _healthy(self, spaces: dict[SpaceName, SpaceHealth], *, reason: str = "") -> StoreHealth:
        child = self._kept.child
        resident = child.resident_bytes() if child is not None else 0
        return StoreHealth(
            self._start.backend,
            is_ok=True,
            reason=reason,
            resident_bytes=resident,
            restarts=self._kept.restarts,
            spaces=spaces,
        )

    def _unwell(self, reason: str) -> StoreHealth:
        return StoreHealth(
            self._start.backend,
            is_ok=False,
            reason=reason,
            restarts=self._kept.restarts,
            spaces=self._last_health.spaces,
        )


async def _see_out(child: Child) -> None:
    """Wait until a child whose wire broke has ended: until then it would be taken for a running one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_PATIENCE_S):
            await child.link.wait_ended()
            await child.wait_ended()
