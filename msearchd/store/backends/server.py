"""A Qdrant server or cluster by URL.

One collection a space, shared by machines (see collections.py); HTTP for questions, gRPC for bulk where a port is
given and
answers. Every operation is idempotent, so a call whose answer was lost is simply sent again, with growing jittered
waits.
Not verified without a server: optimizer lag, strict mode, replication, TLS (run the contract suite with QDRANT_URL
set).
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from qdrant_client import AsyncQdrantClient, models

from msearchd import errors
from msearchd.aio import backoff
from msearchd.domain.space import Space
from msearchd.store.backends.collections import INDEXES, Collections, vector_params
from msearchd.store.backends.port import StoreStart
from msearchd.store.backends.server_errors import is_unreachable, translated

#: Its coroutines wait for a network: store/process.py gives it an event loop.
SUSPENDS = True

T = TypeVar("T")

_ATTEMPTS = 4
_BACKOFF_S = 0.2
#: A gRPC port that does not answer is left alone for this long, and HTTP does its work.
_GRPC_REST_S = 60.0


def open_backend(start: StoreStart) -> ServerBackend:
    """Make the client; connects at the first call. Raises Misconfigured where the key's file cannot be read."""
    key = _api_key(start.api_key_file)
    common: dict[str, Any] = {
        "url": start.url,
        "api_key": key,
        "timeout": max(1, int(start.timeout_s)),
        "check_compatibility": False,
    }
    http = AsyncQdrantClient(**common)
    grpc = AsyncQdrantClient(**common, grpc_port=start.grpc_port, prefer_grpc=True) if start.grpc_port else None
    return ServerBackend(http, grpc, start)


def _api_key(path: str) -> str | None:
    if not path:
        return os.environ.get("QDRANT_API_KEY") or None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise errors.Misconfigured(
            f"the API key's file {path} cannot be read: {error.strerror}",
            key="store.api_key_file",
            hint="correct api_key_file in [store], or its permissions",
        ) from error


class ServerBackend(Collections):
    """Collections on a server."""

    def __init__(self, http: AsyncQdrantClient, grpc: AsyncQdrantClient | None, start: StoreStart) -> None:
        super().__init__(http, tenant=start.tenant)
        self._grpc = grpc
        self._grpc_after = 0.0
        self._start = start

    async def close(self) -> None:
        """Close connections."""
        await super().close()
        if self._grpc is not None:
            await self._grpc.close()

    async def _call(self, doing: str, call: Callable[[Any], Awaitable[T]], *, is_bulk: bool = False) -> T:
        if is_bulk and self._grpc is not None and time.monotonic() >= self._grpc_after:
            try:
                return await call(self._grpc)
            except Exception as error:
                if not is_unreachable(error):
                    raise translated(error, doing, self._start.url) from error
                self._grpc_after = time.monotonic() + _GRPC_REST_S
        attempt = 1
        while True:
            try:
                return await call(self._client)
            except Exception as error:
                problem = translated(error, doing, self._start.url)
                if not isinstance(problem, errors.RetryLater) or attempt == _ATTEMPTS:
                    raise problem from error
            await asyncio.sleep(backoff.delay_s(attempt, base_s=_BACKOFF_S, cap_s=5.0))
            attempt += 1

    async def _create(self, name: str, space: Space) -> None:
        doing = f"creating space {space.name}"
        if not await self._call(doing, lambda c: c.collection_exists(name)):
            # Originals on the disk, 8-bit copies in memory, rescored: the shape that every server version since 1.2
            # has.
            int8 = models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            )
            vectors = vector_params(
                space,
                on_disk=True,
                quantization_config=None if space.multi else int8,
                hnsw_config=models.HnswConfigDiff(m=0) if space.multi else None,
            )
            await self._call(
                doing,
                lambda c: c.create_collection(
                    name,
                    **vectors,
                    shard_number=self._start.shard_number,
                    replication_factor=self._start.replication_factor,
                    on_disk_payload=True,
                ),
            )
        for field, params in INDEXES.items():  # before any point: the graph is then built with links for them
            await self._call(doing, functools.partial(_make_index, name, field, params))


def _make_index(name: str, field: str, params: Any, client: Any) -> Awaitable[Any]:
    return client.create_payload_index(name, field, field_schema=params, wait=True)  # type: ignore[no-any-return]
