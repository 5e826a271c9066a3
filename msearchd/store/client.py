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
from msearchd.aio.child import ChildSpec, DeadlineExpired, KeptChild, Limits, LinkLost, Reply
from msearchd.domain.space import Point, Space, SpaceName, SparseVectors, Vectors
from msearchd.settings.model import StoreSettings
from msearchd.store import codec
from msearchd.store.backends import growth
from msearchd.store.backends.port import StoreStart
from msearchd.store.opening import OpenSpaces, seen_out
from msearchd.store.vector_store import Damage, ScoredPoint, SpaceHealth, StoreHealth, VectorSearch

log = structlog.get_logger(__name__)

#: A whole rewrite of a large space; it holds the process for its duration.
_OPTIMIZE_DEADLINE_S = 1800.0
_HEALTH_PATIENCE_S = 2.0
_CLOSE_PATIENCE_S = 10.0
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
        self._start = start_of(settings, data_dir)
        spec = ChildSpec(name="store", module="msearchd.store.process", start=self._start.to_wire(), limits=limits)
        self._kept = KeptChild(spec)
        self._spaces = OpenSpaces(self._kept, self._start, load_deadline_s=load_deadline_s)
        # Few long calls at a time: a deadline counts a call's own work, not the queue before it.
        self._bulk = asyncio.Semaphore(_SERVER_CALLS if self._start.backend == "server" else 1)
        self._last_health = StoreHealth(self._start.backend, is_ok=False, reason="not started yet")
        self._optimizing = 0
        self._is_closed = False

    def __repr__(self) -> str:
        state = f"pid {child.pid}" if (child := self._kept.child) is not None else "not running"
        spaces, restarts = len(self._spaces.opened), self._kept.restarts
        return f"<StoreProcess {self._start.backend} {state} | {spaces} spaces open | {restarts} restarts>"

    @property
    def pid(self) -> int | None:
        """Process id of the store process while it runs."""
        child = self._kept.child
        return child.pid if child is not None else None

    # -- VectorStore -------------------------------------------------------------------------------------------------

    async def ensure(self, space: Space) -> None:
        """Create the space if it is not there. Misconfigured where it exists with another dimension."""
        await self._spaces.ensure(space)

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
            "sparse": isinstance(vectors, SparseVectors),
        }
        rows = len(points) if isinstance(vectors, SparseVectors) else vectors.count
        deadline_s = self._settings.timeout_s + rows / _POINTS_PER_S
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
        self._spaces.forget(space)
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

    @contextlib.asynccontextmanager
    async def held_still(self) -> AsyncIterator[Path | None]:
        """The folder of the vector files, flushed and unchanged meanwhile; searches go on, writes wait.

        None where the vectors are not files of ours (a server's, or none yet). Raises RetryLater where it cannot flush.
        """
        if self._start.backend == "server":
            yield None
            return
        async with self._bulk:
            await self._call("flush", lane=wire.LANE_BULK, deadline_s=self._settings.timeout_s)
            yield self._start.folder if await asyncio.to_thread(self._start.folder.is_dir) else None

    # -- beyond the protocol -----------------------------------------------------------------------------------------

    async def next_damage(self) -> Damage:
        """Wait until the files of a space were found damaged and set aside. One caller: whoever repairs."""
        return await self._spaces.damages.get()

    def damages(self) -> list[Damage]:
        """What `next_damage` would return now, without waiting; empties it."""
        found = []
        while not self._spaces.damages.empty():
            found.append(self._spaces.damages.get_nowait())
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
            if not self._spaces.close(spaces):
                raise
        return await self._once(request)

    async def _once(self, request: _Request) -> Reply:
        if request.spaces:
            await self._spaces.open(request.spaces)
        child = await self._kept.ready()
        try:
            return await self._kept.call(
                request.op, request.args, request.body, deadline_s=request.deadline_s, lane=request.lane
            )
        except (LinkLost, DeadlineExpired):
            await seen_out(child)
            raise

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
