"""An engine that forgets at exit: qdrant-client's in-memory mode. For tests and trials; exact, slow beyond some
thousand points.
"""

from __future__ import annotations

from typing import Any

from qdrant_client import AsyncQdrantClient

from msearchd.domain.space import Space
from msearchd.store.backends.collections import Collections, vector_params
from msearchd.store.backends.port import StoreStart


def open_backend(start: StoreStart) -> MemoryBackend:
    """Always works."""
    return MemoryBackend(AsyncQdrantClient(location=":memory:"), tenant=start.tenant)


class MemoryBackend(Collections):
    """Collections in this process's memory; its coroutines never suspend."""

    async def _create(self, name: str, space: Space) -> None:
        if not await self._client.collection_exists(name):
            await self._client.create_collection(name, **vector_params(space))

    def _params(self, is_exact: bool) -> None:
        """Always exact."""

    async def _all(self, answers: list[Any]) -> None:
        for answer in answers:
            await answer
